"""What a check is, and what it says: the component, the check, what was expected and what was found."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ftengine.errors import ConfigError, FtengineError, TrainingError, unknown
from ftengine.host import KINDS, LookupProblem
from ftengine.vocabulary import TARGET_FIELDS

if TYPE_CHECKING:
    from ftengine.testing.subject import Subject

PAGE = "docs/conformance.md"

RUN = "a run that can be made of what its spec says (`task`, `levels`, `example`, `example_config`, …) and its config"
"""What a component is checked in."""


class Nonconformity(AssertionError):  # noqa: N818  # what it says is no error of the kit's
    """A component does not do what its contract says. `expected` and `found` are clauses: "finite logits"."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}; found {found}")
        self.expected = expected
        self.found = found


class NotApplicable(Exception):  # noqa: N818  # it is no error
    """The check has nothing to look at in this component; the text says why."""


@dataclass(frozen=True)
class Check:
    """One thing that a component of certain kinds must do. `name` is unique; `summary` is one line for a person."""

    name: str
    kinds: tuple[str, ...]
    summary: str
    run: Callable[[Subject], None]

    @property
    def page(self) -> str:
        """Where it is explained."""
        return f"{PAGE}#{self.name.replace('_', '-')}"


@dataclass(frozen=True)
class Result:
    """What came of a check of a component. `expected` and `found` where it failed, `reason` where it was left out."""

    component: str
    check: Check
    status: Literal["ok", "failed", "left out"]
    expected: str = ""
    found: str = ""
    reason: str = ""

    @property
    def text(self) -> str:
        """What is wrong, and where that is explained."""
        lines = [f"{self.component}: {self.check.name}: {self.check.summary}"]
        lines += [f"  expected: {self.expected}", f"  found: {self.found}", f"  explained in {self.check.page}"]
        return "\n".join(line.replace("\n", "\n    ") for line in lines)


CHECKS: list[Check] = []
"""Every check of the kit, in the order in which they run."""


def check(*kinds: str) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Add a function to the kit, for components of `kinds` (none: of all); its name and docstring are the check's."""

    def add(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        summary = (function.__doc__ or "").strip().splitlines()[0]
        CHECKS.append(Check(function.__name__, kinds or KINDS, summary, function))
        return function

    return add


def checks_for(kind: str) -> list[Check]:
    """The checks of the components of one kind, in order."""
    return [one for one in CHECKS if kind in one.kinds]


def find_check(name: str) -> Check:
    """The check of that name. Raises LookupProblem with the nearest one."""
    for one in CHECKS:
        if one.name == name:
            return one
    raise LookupProblem(unknown("check", name, [one.name for one in CHECKS]))


def run_check(one: Check, subject: Subject) -> Result:
    """Run a check; what the component raises in it is a failure of the component."""
    try:
        one.run(subject)
    except NotApplicable as why:
        return Result(subject.name, one, "left out", reason=str(why))
    except Nonconformity as fault:
        return Result(subject.name, one, "failed", fault.expected, fault.found)
    except ConfigError as error:
        return Result(subject.name, one, "failed", RUN, str(error))
    except FtengineError as error:
        expected = "a small run that goes through" if isinstance(error, TrainingError) else "no error"
        # What stays of a run that has failed is said by the error around its cause, and is nothing to an author.
        cause = error.__cause__ if type(error.__cause__) is type(error) else error
        return Result(subject.name, one, "failed", expected, str(cause))
    except (Exception, SystemExit) as error:  # SystemExit would end the kit, with the exit code of a success
        last = traceback.extract_tb(error.__traceback__)[-1]
        found = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno}){_hint(error)}"
        return Result(subject.name, one, "failed", "no error", found)
    return Result(subject.name, one, "ok")


def _hint(error: BaseException) -> str:
    """What is likely to be meant where a target field is missed."""
    missing = error.args[0] if isinstance(error, KeyError) and error.args else None
    if missing not in TARGET_FIELDS:
        return ""
    return f"; what learns from `{missing}` alone, and not from all fields of its task, says so: fields=({missing!r},)"


def run_checks(subjects: Sequence[Subject], only: str | None = None) -> Iterator[Result]:
    """Run every check of every component, or the check named `only`.

    Where the factory does not even resolve, the checks after that are left out: they would all say the same.
    """
    for subject in subjects:
        lost = False
        for one in checks_for(subject.component.kind):
            if lost:
                yield Result(subject.name, one, "left out", reason="there is no factory")
            elif only in (None, one.name):
                result = run_check(one, subject)
                lost = only is None and one.name == "factory_resolves" and result.status == "failed"
                yield result
