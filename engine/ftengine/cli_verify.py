"""``ftengine verify-resume``. torch is imported after the config has been found good."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ftengine.cli_common import config_option, set_option, task_option
from ftengine.resolve import load

if TYPE_CHECKING:
    from rich.console import Console

    from ftengine.identical import Comparison
    from ftengine.verify import Points

SHOWN = 5
"""How many differences are listed."""


@click.command("verify-resume")
@config_option
@task_option
@set_option
@click.option(
    "--steps", type=int, help="Steps to compare; default: one and a half epochs of up to 18 steps, else 20 steps."
)
@click.option("--at", type=int, help="The step to stop after; default: in the middle of the first epoch.")
def verify_resume(
    config: Path | None, task: str | None, assignments: tuple[str, ...], steps: int | None, at: int | None
) -> None:
    """Prove that a config's runs resume exactly.

    Trains a few steps twice, in processes of their own: once without a stop, and once stopped and resumed. Then
    compares every tensor of model and optimizer, the state and the metrics, bit by bit. Exit code 0: they are
    identical; 1: they differ, and it is said where, and what may be the cause. Works in a temporary folder.
    """
    if config is None:
        raise click.UsageError("--config FILE is needed")
    plan = load(config, assignments, task)
    from ftengine.track import make_console  # rich

    console = make_console()
    with console.status("loading torch"):
        from ftengine.children import StoppedBySignal
        from ftengine.signals import Signals
        from ftengine.verify import Verifier, choose_points
    points = choose_points(plan, steps, at)
    arguments = ["--config", str(config), *(["--task", task] if task else [])]
    arguments += [part for assignment in assignments for part in ("--set", assignment)]
    with tempfile.TemporaryDirectory(prefix="ftengine-verify-") as folder, Signals() as signals:
        verifier = Verifier(arguments, Path(folder), points, signals, console.print)
        try:
            comparison = verifier.verify()
            causes = verifier.causes(plan) if comparison.differences else []
        except StoppedBySignal as stopped:
            raise SystemExit(stopped.code) from None
    _show(console, points, comparison, causes)
    if comparison.differences:
        raise SystemExit(1)


def _show(console: Console, points: Points, comparison: Comparison, causes: list[str]) -> None:
    compared = f"{comparison.tensors:,} tensors, {comparison.values:,} values of the state, {comparison.lines:,} lines"
    span = f"stopped after step {points.at} of {points.steps}, an epoch has {points.per_epoch}"
    if not points.crossed:
        span += "; no epoch ended after the stop: --steps reaches further"
    if not comparison.differences:
        console.print(f"identical: {compared} of metrics ({span})", soft_wrap=True)
        return
    found = comparison.differences
    console.print(f"different: {len(found):,} of {compared} of metrics ({span})", soft_wrap=True)
    for difference in found[:SHOWN]:
        console.print(f"  {difference}", soft_wrap=True)
    if len(found) > SHOWN:
        console.print(f"  … and {len(found) - SHOWN:,} more", soft_wrap=True)
    for cause in causes:
        console.print(f"cause: {cause}", soft_wrap=True)
