"""The statistics of a comparison: intervals over seeds, and which strategy to recommend. Needs no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95
FASTER = 0.8
"""A run counts as cheaper if it takes at most this part of another's time."""


@dataclass(frozen=True)
class Interval:
    """A mean, half the width of its 95 % interval, and its standard error: None for a single value."""

    mean: float
    half: float | None
    error: float | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0; never so for a single value."""
        return self.half is not None and abs(self.mean) > self.half

    @property
    def within_error(self) -> bool:
        """Whether the mean is at most one standard error from 0."""
        return self.error is not None and abs(self.mean) <= self.error


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean of n independent values: mean ± t(0.975, n - 1) · s / √n (Student 1908)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, None)
    from scipy.stats import t  # type: ignore[import-untyped]

    quantile = float(t.ppf((1 + LEVEL) / 2, len(values) - 1))
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, quantile * error, error)


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Interval:
    """The interval of a - b over the seeds that both have: they share data order and start, so it is paired."""
    return interval([a[seed] - b[seed] for seed in a if seed in b])


@dataclass(frozen=True)
class Candidate:
    """A strategy that finished with every seed. `values` by seed; `seconds` a run; `lost` by seed, if measured."""

    name: str
    values: Mapping[int, float]
    seconds: float
    lost: Mapping[int, float] | None = None

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values.values())


@dataclass(frozen=True)
class Recommendation:
    """A strategy, and why it: one or two sentences with the numbers."""

    strategy: str
    reason: str


def recommend(candidates: Sequence[Candidate], metric: str, mode: str) -> Recommendation | None:
    """The strategy with the best mean or, of those within one standard error of it, the cheapest; None without any.

    That is the one-standard-error rule (Breiman et al. 1984), on the paired differences over the seeds: with few seeds
    a 95 % interval holds almost anything, and says nothing for what is cheap but worse. Of those within, those stay
    than which none is at least 20 % faster; of these, if it was measured, those that do not lose more than the one that
    loses least, as far as the seeds can tell; of these the best mean is recommended. A single seed tells nothing, and
    the best value is recommended as no more than that.
    """
    if not candidates:
        return None
    sign = -1 if mode == "min" else 1
    ranked = sorted(candidates, key=lambda item: -sign * item.mean)
    best = ranked[0]
    seeds = len(best.values)
    if seeds == 1:
        return Recommendation(best.name, _one_seed(ranked, metric))
    alike = [item for item in ranked if item is best or paired(best.values, item.values).within_error]
    fastest = min(item.seconds for item in alike)
    quick = chosen = [item for item in alike if fastest > FASTER * item.seconds]
    lost = [item.lost for item in chosen if item.lost is not None and item.lost.keys() == item.values.keys()]
    if len(lost) == len(chosen):
        least = min(lost, key=lambda values: statistics.fmean(values.values()))
        chosen = [item for item in chosen if item.lost is least or not paired(item.lost or {}, least).excludes_zero]
    reason = _reason(chosen[0], best, alike, ranked, metric, sign, slow=best not in quick)
    return Recommendation(chosen[0].name, reason)


def _one_seed(ranked: Sequence[Candidate], metric: str) -> str:
    best = ranked[0]
    text = f"{best.name} has the best {metric}, {number(best.mean)}"
    if len(ranked) > 1:
        text += f" (next: {ranked[1].name}, {number(ranked[1].mean)})"
    return text + ". With one seed it cannot be told whether that is chance: use --seeds 3 or more."


def _reason(
    winner: Candidate,
    best: Candidate,
    alike: list[Candidate],
    ranked: list[Candidate],
    metric: str,
    sign: int,
    *,
    slow: bool,
) -> str:
    own = interval(list(best.values.values()))
    text = f"{best.name} has the best mean {metric}, {spread(own)} over {len(best.values)} seeds"
    if len(ranked) == 1:
        return text + "; no other strategy finished."
    if len(alike) == 1:
        return f"{text}, and none is within one standard error of it: {_difference(best, ranked[1], sign)}."
    if winner is best:
        others = [item.name for item in alike if item is not best]
        verb, cheaper = ("is", "is no cheaper") if len(others) == 1 else ("are", "none of them is cheaper")
        return f"{text}. {', '.join(others)} {verb} within one standard error of it, but {cheaper}."
    if slow:
        times = f"{duration(winner.seconds)} a run instead of {duration(best.seconds)}"
        cheaper = f"takes {1 - winner.seconds / best.seconds:.0%} less time ({times})"
    else:
        kept, gone = (statistics.fmean(item.lost.values()) for item in (winner, best) if item.lost is not None)
        cheaper = f"loses less on the retain data ({number(kept, 3)} instead of {number(gone, 3)})"
    difference = _difference(best, winner, sign)
    return f"{text}. {winner.name} is within one standard error of it ({difference}) and {cheaper}."


def _difference(best: Candidate, other: Candidate, sign: int) -> str:
    """How much better the best is, with its interval."""
    found = paired(best.values, other.values)
    assert found.half is not None
    ends = sorted((sign * (found.mean - found.half), sign * (found.mean + found.half)))
    gain, low, high = (number(value, 2) for value in (sign * found.mean, *ends))
    return f"{gain} better than {other.name}, 95 % interval {low} to {high}"


def spread(found: Interval) -> str:
    """A mean and half of its interval: ``0.7146 ± 0.034``."""
    return number(found.mean) if found.half is None else f"{number(found.mean)} ± {number(found.half, 2)}"


def number(value: float, digits: int = 4) -> str:
    """`value` to `digits` significant ones, without an exponent where it is large: ``0.7146``, ``371,700``, ``0``."""
    if abs(value) < 1e-12:  # what rounding leaves of differences between equal values
        return "0"
    if abs(value) < 10**digits:
        return f"{value:.{digits}g}"
    return f"{round(value, digits - 1 - math.floor(math.log10(abs(value)))):,.0f}"


def duration(seconds: float) -> str:
    """``0.4 s``, ``42 s``, ``3 min 20 s``, ``1 h 5 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
