"""``ftengine lr-find``. torch is imported after the config has been found good."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ftengine.cli_common import config_option, set_option, task_option
from ftengine.cli_run import check_empty
from ftengine.errors import FtengineError
from ftengine.resolve import load
from ftengine.signals import Interrupted, Signals

if TYPE_CHECKING:
    from rich.console import Console

    from ftengine.lr_curve import Curve, Suggestion
    from ftengine.plan import Plan


@click.command("lr-find")
@config_option
@task_option
@set_option
@click.option(
    "--min",
    "lowest",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-7,
    show_default=True,
    help="First learning rate.",
)
@click.option(
    "--max",
    "highest",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Last learning rate, unless the loss diverges before it.",
)
@click.option("--steps", type=click.IntRange(min=10), default=100, show_default=True, help="Rates to try, one a batch.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder, new or empty; default: runs/lr-find-<config>-<time>."
)
def lr_find(
    config: Path | None,
    task: str | None,
    assignments: tuple[str, ...],
    lowest: float,
    highest: float,
    steps: int,
    output: Path | None,
) -> None:
    """Find a learning rate: raise it batch by batch until the loss diverges.

    Trains on the config's own batches, and keeps nothing of it. Prints the rates that two rules suggest, and writes
    the losses as lr-find.json, lr-find.csv and lr-find.png.
    """
    if config is None:
        raise click.UsageError("--config FILE is needed")
    from ftengine.lr_curve import Curve

    try:
        Curve(lowest, highest, steps)
    except FtengineError as error:
        raise click.UsageError(f"--min, --max: {error}") from None
    plan = load(config, assignments, task)
    directory = (output or Path("runs") / f"lr-find-{config.stem}-{datetime.now():%Y%m%d-%H%M%S}").absolute()
    check_empty(directory)
    from ftengine.track import make_console  # rich

    console = make_console()
    done = 0
    with Signals() as signals:
        try:
            curve = _measure(plan, directory, console, signals, lowest, highest, steps)
            done = len(curve.points)
            signals.check()
        except Interrupted as stop:
            console.print(f"stopped by {stop} after step {done}; nothing was written")
            raise SystemExit(stop.code) from None
        from ftengine.lr_curve import ADVICE, suggestions, warnings
        from ftengine.lr_report import write

        suggested = suggestions(curve)
        warned = warnings(curve, suggested[ADVICE])
        files = write(directory, config.name, plan.resolved(), curve, suggested, warned)
    _show(console, plan, curve, suggested, warned)
    console.print(f"written to {directory}: {', '.join(file.name for file in files)}", soft_wrap=True)


def _measure(
    plan: Plan, directory: Path, console: Console, signals: Signals, lowest: float, highest: float, steps: int
) -> Curve:
    """Build the run and test it, with a line that shows how far it is."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with console.status("loading torch"):
        from ftengine.lr_find import range_test
        from ftengine.run import assemble
    with signals.at_once():
        training = assemble(plan, directory, console, signals, resume=False)
    console.print(f"trying {steps} learning rates from {lowest:.1e} to {highest:.1e}")
    columns = (
        TextColumn("range test"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=steps, text="starting")

        def advance(curve: Curve) -> None:
            point = curve.points[-1]
            text = f"loss {point.smoothed:.4f}  lr {point.lr:.2e}"
            progress.update(bar, completed=len(curve.points), text=text)

        return range_test(training, lowest, highest, steps, advance)


def _show(console: Console, plan: Plan, curve: Curve, suggested: Mapping[str, Suggestion], warned: list[str]) -> None:
    """The rules' answers as a table, and the advice as a line of config."""
    from rich.markup import escape
    from rich.table import Table

    from ftengine.lr_curve import ADVICE

    console.print(f"after {len(curve.points)} steps: {curve.reason}", soft_wrap=True)
    table = Table()
    table.add_column("rule")
    table.add_column("learning rate", justify="right")
    table.add_column("smoothed loss", justify="right")
    for rule, made in suggested.items():
        numbers = ("-", "-") if made.lr is None else (f"{made.lr:.1e}", f"{made.loss:.4g}")
        table.add_row(rule, *numbers)
    console.print(table)
    advice = suggested[ADVICE]
    if advice.lr is None:
        console.print(f"[yellow]no advice:[/yellow] {escape(advice.reason)}", markup=True, soft_wrap=True)
        return
    console.print(f"advice ({ADVICE}), in place of {plan.optimizer.lr:g}:\n  optimizer.lr: {advice.lr:.1e}")
    for text in warned:
        console.print(f"[yellow]warning:[/yellow] {escape(text)}", markup=True, soft_wrap=True)
