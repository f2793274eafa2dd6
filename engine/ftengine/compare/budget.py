"""A budget of time, and how many epochs of a strategy fit into a run's share of it. Needs no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import click

_NUMBER = r"(\d+(?:\.\d+)?)\s*"
_PATTERN = re.compile(rf"(?:{_NUMBER}h)?\s*(?:{_NUMBER}(?:min|m))?\s*(?:{_NUMBER}s)?")


def seconds_of(text: str) -> float:
    """``90s``, ``20min`` or ``1h30min`` in seconds. UsageError for anything else, and for no time at all."""
    found = _PATTERN.fullmatch(text.strip())
    parts = found.groups() if found else ()
    total = sum(float(part) * unit for part, unit in zip(parts, (3600.0, 60.0, 1.0), strict=False) if part)
    if total <= 0:
        raise click.UsageError(f"--budget {text!r}: expected a time such as 90s, 20min or 1h30min")
    return total


def as_option(seconds: float) -> str:
    """At least `seconds`, as ``--budget`` takes it, in round numbers: ``40s``, ``12min``, ``1h30min``."""
    if seconds <= 90:
        return f"{math.ceil(seconds / 5) * 5}s"
    minutes = math.ceil(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours}h" * bool(hours) + f"{rest}min" * bool(rest)


@dataclass(frozen=True)
class Cost:
    """What a run takes, in seconds: its start, a training step, an evaluation of val, and saving a checkpoint.

    `steps` an epoch; an evaluation after each `eval_every` epochs, `extra` more of them at the end.
    """

    start: float
    step: float
    evaluation: float
    save: float
    steps: int
    eval_every: int = 1
    extra: float = 0.0

    @classmethod
    def measured(cls, found: Mapping[str, float], process: float, eval_every: int, mixtures: int) -> Cost:
        """From what ``compare_measure`` found in a process that took `process` seconds; `mixtures` of wise_ft."""
        return cls(
            start=max(0.0, process - found["measured"]),
            step=found["step"],
            evaluation=found["evaluation"],
            save=found["save"],
            steps=int(found["steps"]),
            eval_every=eval_every,
            extra=found["test"] + mixtures,
        )

    def seconds(self, epochs: int) -> float:
        """A run of `epochs`, with the evaluation before its first step."""
        evaluations = 1 + math.ceil(epochs / self.eval_every) + self.extra
        return self.start + epochs * (self.steps * self.step + self.save) + evaluations * self.evaluation

    def epochs(self, seconds: float) -> int:
        """The most epochs that take no more than `seconds`; 0 if not even one does."""
        if self.seconds(1) > seconds:
            return 0
        low, high = 1, 2
        while self.seconds(high) <= seconds:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.seconds(middle) <= seconds else (low, middle)
        return low
