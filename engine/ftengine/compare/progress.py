"""What a comparison shows while it runs: a table that fills on a terminal, plain lines elsewhere. Needs no torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ftengine.children import tail
from ftengine.compare.plan import Comparison, Run
from ftengine.compare.report import Outcome
from ftengine.compare.stats import duration, number


class Display:
    """Shows `runs`; use it as a context, and say when a run starts, goes on and ends."""

    def __init__(self, comparison: Comparison, runs: Sequence[Run], console: Console) -> None:
        self.comparison = comparison
        self.runs = runs
        self.console = console
        self.state: dict[tuple[str, int], str] = {}
        self.took: dict[str, list[float]] = {}
        self.left = list(runs)
        self.current: Run | None = None
        self.started = 0.0
        self.epoch = self.first_epoch = 0.0
        self.live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def start(self, run: Run) -> None:
        """`run` begins, or goes on."""
        self.current, self.started = run, time.monotonic()
        self.epoch = self.first_epoch = self._epoch(run)
        self.state[run.strategy, run.seed] = "starting"
        if not self.console.is_terminal:
            number = self.runs.index(run) + 1
            self.console.print(f"run {number} of {len(self.runs)}: {run.strategy}, seed {run.seed}", soft_wrap=True)
        self._refresh()

    def look(self) -> None:
        """The run goes on: see how far it is."""
        if self.current is None or not self.console.is_terminal:
            return
        self.epoch = self._epoch(self.current)
        of = self.comparison.epochs[self.current.strategy]
        self.state[self.current.strategy, self.current.seed] = f"epoch {min(of, int(self.epoch) + 1)}/{of}"
        self._refresh()

    def end(self, outcome: Outcome, *, before: bool = False) -> None:
        """A run ended, in this process or `before`."""
        run, summary = outcome.run, outcome.summary
        self.left.remove(run)
        if outcome.error or summary is None:
            text = "failed"
        else:
            text = number(summary["metrics"]["val"][self.comparison.metric])
            self.took.setdefault(run.strategy, []).append(summary["seconds"])
            if self.current is run and self.first_epoch == 0:
                self.took[run.strategy][-1] = time.monotonic() - self.started  # with the start of the process
        self.state[run.strategy, run.seed] = text
        self.current = None
        if before or self.console.is_terminal:
            self._refresh()
            return
        if text == "failed":
            self.console.print("  failed: " + outcome.error.replace("\n", "\n  "), soft_wrap=True)
        else:
            assert summary is not None
            line = f"  {self.comparison.metric} {text} on val in {duration(summary['seconds'])}"
            rest = self.remaining()
            self.console.print(line + (f"; about {duration(rest)} left" if rest else ""), soft_wrap=True)

    def remaining(self) -> float | None:
        """Seconds until all runs are done, estimated from those that are; None as long as none is."""
        every = [seconds for took in self.took.values() for seconds in took]
        spent = 0.0 if self.current is None else time.monotonic() - self.started
        gone = self.epoch - self.first_epoch
        if not every and self.current is not None and gone > 0:
            every = [spent * (self.comparison.epochs[self.current.strategy] - self.first_epoch) / gone]
        if not every:
            return None
        typical = {run.strategy: statistics.fmean(self.took.get(run.strategy, every)) for run in self.left}
        waiting = sum(typical[run.strategy] for run in self.left if run is not self.current)
        return waiting + (0.0 if self.current is None else max(0.0, typical[self.current.strategy] - spent))

    @staticmethod
    def _epoch(run: Run) -> float:
        lines = tail(run.directory / "metrics.jsonl")
        return float(lines[-1]["epoch"]) if lines else 0.0

    def _refresh(self) -> None:
        if self.console.is_terminal:
            self.live.update(self._picture(), refresh=True)

    def _picture(self) -> Group:
        table = Table()
        table.add_column("strategy")
        for seed in self.comparison.seeds:
            table.add_column(f"seed {seed}", justify="right", min_width=11)
        for name in self.comparison.strategies:
            table.add_row(name, *(self.state.get((name, seed), "") for seed in self.comparison.seeds))
        rest = self.remaining()
        done = len(self.runs) - len(self.left)
        line = f"{done} of {len(self.runs)} runs done" + ("" if rest is None else f", about {duration(rest)} left")
        return Group(table, Text(line))
