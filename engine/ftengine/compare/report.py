"""What a comparison found: a row a strategy, and the recommendation. Needs no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ftengine.compare.plan import Comparison, Run
from ftengine.compare.stats import Candidate, Recommendation, recommend


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with a summary, or with the last lines that it printed (`error`).

    `retained` holds ``value`` and ``lost``, where a --retain set was given.
    """

    run: Run
    summary: dict[str, Any] | None = None
    error: str = ""
    retained: dict[str, float] | None = None


@dataclass(frozen=True)
class Row:
    """One strategy: what its `finished` of `planned` runs came to. By seed where it says so, else the mean.

    `values` are the metric's by seed, `val` those on the split by which one is recommended; `start` is its value on
    `val` before the first step; `memory` in bytes, the largest of all runs; `moved` is ‖w - w0‖ / ‖w0‖ of the backbone;
    `lost` by seed.
    """

    name: str
    epochs: int
    planned: int
    values: dict[int, float]
    val: dict[int, float]
    start: float | None
    seconds: float | None
    trained: int | None
    memory: int | None
    moved: float | None
    lost: dict[int, float] | None

    @property
    def finished(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        """NaN where no run finished."""
        return statistics.fmean(self.values.values()) if self.values else math.nan


@dataclass(frozen=True)
class Report:
    """All of it: `rows` from the best mean down, `split` is what the metric was taken on, `of` whose peak memory it is.

    `complete`: every run was tried; a comparison that was stopped has no recommendation.
    """

    comparison: Comparison
    outcomes: list[Outcome]
    rows: list[Row]
    split: str
    of: str
    complete: bool
    recommendation: Recommendation | None


def failure(summary: dict[str, Any]) -> str:
    """Why a finished run does not count; empty if it does."""
    primary = summary["primary"]
    if any(values.get(primary) is None for values in summary["metrics"].values()):
        return f"its {primary} is not a finite number"
    return ""


def make_report(comparison: Comparison, outcomes: Sequence[Outcome], *, complete: bool) -> Report:
    """Count, average, sort and recommend. A run with an error, or without a finite metric, has failed."""
    good = [outcome for outcome in outcomes if outcome.summary is not None and not outcome.error]
    summaries = [outcome.summary for outcome in good if outcome.summary is not None]
    split = "test" if summaries and "test" in summaries[0]["metrics"] else "val"
    rows = [
        _row(comparison, name, [item for item in good if item.run.strategy == name], split)
        for name in comparison.strategies
    ]
    sign = 1 if comparison.mode == "min" else -1
    rows.sort(key=lambda row: (not row.values, sign * row.mean if row.values else 0.0))
    candidates = [
        Candidate(row.name, row.val, row.seconds, row.lost)
        for row in rows
        if row.finished == row.planned and row.seconds is not None
    ]
    recommendation = recommend(candidates, f"{comparison.metric} on val", comparison.mode) if complete else None
    of = summaries[0]["peak_memory"]["of"] if summaries else "process"
    return Report(comparison, list(outcomes), rows, split, of, complete, recommendation)


def _row(comparison: Comparison, name: str, outcomes: Sequence[Outcome], split: str) -> Row:
    summaries = [outcome.summary for outcome in outcomes if outcome.summary is not None]

    def mean(value: Callable[[dict[str, Any]], float | None]) -> float | None:
        found = [number for number in map(value, summaries) if number is not None]
        return statistics.fmean(found) if found else None

    lost = {item.run.seed: item.retained["lost"] for item in outcomes if item.retained is not None}
    return Row(
        name=name,
        epochs=comparison.epochs[name],
        planned=len(comparison.seeds),
        val={item.run.seed: item.summary["metrics"]["val"][comparison.metric] for item in outcomes if item.summary},
        values={item.run.seed: item.summary["metrics"][split][comparison.metric] for item in outcomes if item.summary},
        start=mean(lambda summary: summary["start"].get(comparison.metric)),
        seconds=mean(lambda summary: summary["seconds"]),
        trained=max((summary["parameters"]["trained"] for summary in summaries), default=None),
        memory=max((summary["peak_memory"]["bytes"] for summary in summaries), default=None),
        moved=mean(lambda summary: summary["moved"]),
        lost=lost or None,
    )
