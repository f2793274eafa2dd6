"""What a run says while it goes: a live line and tables for a person, JSON lines for programs, observers."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ftengine.disk import naming, publish
from ftengine.finite import without_nan
from ftengine.groups import rates
from ftengine.guard import Fault
from ftengine.host import Host
from ftengine.model import StageSummary
from ftengine.plugin import RunInfo


def make_console() -> Console:
    """Standard output: as wide as the terminal, and wide enough for every table in a pipe or a file.

    Names of classes and files are shown as they are: neither brackets nor colons mean anything in them, and what the
    output's encoding lacks is shown by its number.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=160)
    return console


class Tracker:
    """Tells a person, ``metrics.jsonl`` and the observers the same things.

    Of several processes the first does so. The others are given a console that is quiet, and are `silent`.
    """

    def __init__(self, info: RunInfo, host: Host, console: Console, epochs: int, *, silent: bool = False) -> None:
        self.info = info
        self.silent = silent
        self.epochs = epochs
        self.stop_after: int | None = None
        self.host = host
        self.console = console
        self.file = info.directory / "metrics.jsonl"
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=silent or not console.is_terminal,
        )
        self.bar = self.progress.add_task("", total=None, epoch="", text="")

    # --- progress ------------------------------------------------------------------------------------------------

    def start(self, step: int) -> None:
        """The first step is about to run; `step` are done."""
        self.progress.update(self.bar, total=self.info.total_steps, completed=step, text="starting")
        self.progress.start()
        self.notify("run_started")

    def advance(self, step: int, epoch: int) -> None:
        """`step` steps are done."""
        self.progress.update(self.bar, completed=step, epoch=f"{epoch + 1}/{self.epochs}")
        if step == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)  # the way that a stop from outside takes

    def finish(self, outcome: str) -> None:
        """The run ended, in whatever way."""
        self.progress.stop()
        self.notify("run_finished", outcome=outcome)

    # --- values --------------------------------------------------------------------------------------------------

    def log(self, step: int, epoch: float, split: str, values: Mapping[str, float]) -> None:
        """Write a line of metrics; NaN and infinities become null, since JSON has none."""
        if self.silent:
            return
        plain = without_nan({"step": step, "epoch": epoch, "split": split, **values})
        with naming(self.file), self.file.open("a") as stream:
            stream.write(json.dumps(plain) + "\n")
        if split == "train":
            self.progress.update(self.bar, text=f"loss {values['loss']:.4f}  lr {values['lr']:.2e}")
        self.notify("metrics_logged", step=step, values=plain)

    def fault(self, fault: Fault, epoch: float) -> None:
        """Write a line of a step that was left out, of split ``fault``: the samples, and what was not finite."""
        if self.silent:
            return
        line = {"step": fault.step, "epoch": round(epoch, 4), "split": "fault", "what": fault.what}
        line |= {"values": without_nan(fault.values), "samples": fault.ids}
        with naming(self.file), self.file.open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def rewind(self, step: int, *, evaluated: bool) -> None:
        """Drop the lines that a run which continues after `step` writes again, and one that was cut off.

        `evaluated`: it does not begin with that step's evaluation.
        """
        if self.silent or not self.file.is_file():
            return
        kept = [
            line
            for line in self.file.read_text("utf-8", "replace").splitlines(keepends=True)
            if _stays(line, step, evaluated)
        ]
        publish(self.file, ["".join(kept).encode()])

    def evaluated(self, epoch: int, values: Mapping[str, float], train_loss: float | None, *, best: bool) -> None:
        """One line for a person, with `values` of the val split; no `train_loss` before the first step."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        mark = "  [green]best[/green]" if best else ""
        before = "as it starts    " if train_loss is None else f"train loss {train_loss:.4f}"
        line = f"epoch {epoch:>3}/{self.epochs}  {before}  |  val {shown}"
        self.console.print(escape(line) + mark, markup=True)

    def saved(self, path: Path) -> None:
        """A checkpoint is visible."""
        self.notify("checkpoint_saved", path=path)

    def notify(self, hook: str, **arguments: Any) -> None:
        """Tell the observers; one that fails is named once, and not asked again."""
        if self.silent:
            return
        for plugin, error in self.host.notify(hook, run=self.info, **arguments):
            self.warn(f"observer {plugin} failed in {hook} and is left out: {type(error).__name__}: {error}")

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.console.print(f"[yellow]warning:[/yellow] {escape(text)}", markup=True)

    # --- tables --------------------------------------------------------------------------------------------------

    def stages(self, rows: Sequence[StageSummary], optimizer_groups: Sequence[Mapping[str, Any]], epoch: int) -> None:
        """The table of stages: what trains, how fast, and in which mode its normalisation is."""
        by_stage = rates(optimizer_groups)
        self.console.print(f"stages from epoch {epoch + 1}")
        table = Table()
        for name in ("stage", "parameters", "trainable", "learning rate", "weight decay", "norm"):
            table.add_column(name, justify="left" if name in ("stage", "norm") else "right")
        for row in rows:
            rate, decay = by_stage.get(row.name, ("-", "-"))
            table.add_row(
                row.name,
                f"{row.parameters:,}",
                f"{row.trainable:,}",
                rate,
                decay,
                row.norm,
            )
        total, trainable = sum(r.parameters for r in rows), sum(r.trainable for r in rows)
        table.add_section()
        table.add_row("all", f"{total:,}", f"{trainable:,}", "", "", "")
        self.console.print(table)


def _stays(line: str, step: int, evaluated: bool) -> bool:
    try:
        values = json.loads(line)
        again = ["test"] if evaluated or values["step"] < step else ["test", "val"]
        return bool(values["step"] <= step and values["split"] not in again)
    except (ValueError, LookupError, TypeError):  # cut off, or no line of ours
        return False


def show_results(console: Console, metrics: Mapping[str, Mapping[str, float]], title: str) -> None:
    """A table of metrics: a row a metric, a column a split."""
    console.print(title)
    table = Table()
    table.add_column("metric")
    for split in metrics:
        table.add_column(split, justify="right")
    for name in dict.fromkeys(name for values in metrics.values() for name in values):
        table.add_row(name, *(f"{values.get(name, math.nan):.4g}" for values in metrics.values()))
    console.print(table)
