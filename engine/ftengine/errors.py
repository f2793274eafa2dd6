"""What a user sees when something is wrong.

Every error that a user can cause is a :class:`FtengineError`; the command line prints its text without a
traceback. A text names the place (config path, file, component), what was found, what was expected and,
where there is one, the nearest valid choice.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field


class FtengineError(Exception):
    """Base of all errors that are reported to the user as text. ``exit_code`` is the process's."""

    exit_code = 1


class DataError(FtengineError):
    """The data do not fit what the run needs: a file, a column, a label, a value."""


class WeightsError(FtengineError):
    """Pretrained weights are not there, or do not fit the model."""


class CheckpointError(FtengineError):
    """A checkpoint or run directory is missing, damaged, or belongs to another model."""


class WorkerError(FtengineError):
    """A process that loads data has died, hangs, or could not be started."""


class TrainingError(FtengineError):
    """Training cannot go on; what was saved before stays."""


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like `name`, or None where none is near."""
    options = list(choices)
    found = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if found:
        return found[0]
    folded = {option.lower().replace("-", "_"): option for option in options}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def name_list(choices: Iterable[str], limit: int = 12) -> str:
    """`choices` sorted and shortened for a message: ``a, b, c, … (+9)``."""
    names = sorted(choices)
    if len(names) <= limit:
        return ", ".join(names) or "none"
    return ", ".join(names[:limit]) + f", … (+{len(names) - limit})"


def unknown(what: str, got: str, choices: Iterable[str]) -> str:
    """The standard sentence for a name that does not exist."""
    options = list(choices)
    near = nearest(got, options)
    hint = f"; did you mean {near!r}?" if near else f"; known: {name_list(options)}"
    return f"unknown {what} {got!r}{hint}"


@dataclass(frozen=True)
class Problem:
    """One mistake in a config: `path` as in ``data.train``, `line` (from 1) where the file shows it."""

    path: str
    message: str
    line: int | None = None
    source: str | None = None

    def __str__(self) -> str:
        place = self.path or "(top level)"
        if self.source is not None:
            where = self.source if self.line is None else f"{self.source}:{self.line}"
            return f"{where}: {place}: {self.message}"
        return f"{place}: {self.message}"


@dataclass
class ConfigError(FtengineError):
    """All mistakes that were found in a config, together."""

    problems: list[Problem] = field(default_factory=list)
    exit_code = 2

    def __str__(self) -> str:
        count = len(self.problems)
        head = "1 problem in the config:" if count == 1 else f"{count} problems in the config:"
        return "\n".join([head, *(f"  {problem}" for problem in self.problems)])
