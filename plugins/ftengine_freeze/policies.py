"""The policies. Each is a pure function of the stages, so that a resumed run freezes the same."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence

from ftengine.errors import FtengineError, nearest, unknown
from ftengine.plugin import Options
from ftengine.protocols import FreezeContext, FreezePolicy, Progress
from ftengine_freeze.plugin import PatternsOptions, StagesOptions


class NoStages(FreezePolicy):
    """Nothing is frozen."""

    def frozen(self, stages: Mapping[str, Sequence[str]], progress: Progress) -> set[str]:
        return set()


class AllStages(FreezePolicy):
    """Every stage is frozen."""

    def frozen(self, stages: Mapping[str, Sequence[str]], progress: Progress) -> set[str]:
        return set(stages)


class Stages(FreezePolicy):
    """The stages of the given names are frozen, whatever the progress."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)

    def frozen(self, stages: Mapping[str, Sequence[str]], progress: Progress) -> set[str]:
        return set(self.names)


class Patterns(FreezePolicy):
    """The parameters that match any of the globs are frozen, whatever the progress. Case matters."""

    def __init__(self, globs: Iterable[str]) -> None:
        self.globs = tuple(globs)

    def frozen(self, stages: Mapping[str, Sequence[str]], progress: Progress) -> set[str]:
        return {name for name in _names(stages) if any(fnmatch.fnmatchcase(name, glob) for glob in self.globs)}


def none(options: Options, context: FreezeContext) -> NoStages:
    """A policy that freezes nothing."""
    return NoStages()


def all_stages(options: Options, context: FreezeContext) -> AllStages:
    """A policy that freezes the whole backbone."""
    return AllStages()


def stages(options: StagesOptions, context: FreezeContext) -> Stages:
    """A policy that freezes whole stages. FtengineError for a stage that the backbone does not have."""
    order = list(context.stages)
    key, names = ("only", options.only) if options.only is not None else ("through", (options.through,))
    wrong = [unknown("stage", str(name), order) for name in names if name not in context.stages]
    if wrong:
        raise FtengineError(f"freeze.{key}: {'; '.join(wrong)} (the backbone's stages: {', '.join(order)})")
    if options.through is not None:
        return Stages(order[: order.index(options.through) + 1])
    return Stages(map(str, names))


def patterns(options: PatternsOptions, context: FreezeContext) -> Patterns:
    """A policy that freezes parameters by globs. FtengineError for a glob that matches none of them."""
    names = _names(context.stages)
    wrong = [glob for glob in options.patterns if not _matches(glob, names)]
    if wrong:
        hints = "; ".join(_no_match(glob, names, list(context.stages)) for glob in wrong)
        raise FtengineError(f"freeze.patterns: {hints}")
    return Patterns(options.patterns)


def _names(stages: Mapping[str, Sequence[str]]) -> list[str]:
    return [name for parameters in stages.values() for name in parameters]


def _matches(glob: str, names: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for name in names)


def _no_match(glob: str, names: list[str], stages: list[str]) -> str:
    text = f"{glob!r} matches no parameter of the backbone"
    if glob in stages:
        return f"{text}; for the whole stage write '{glob}.*'"
    # Where only the stage is misspelt, the same glob in the stage that was meant is the better hint.
    stage, dot, rest = glob.partition(".")
    corrected = f"{nearest(stage, stages)}{dot}{rest}"
    near = corrected if _matches(corrected, names) else nearest(glob.strip("*"), names)
    if near:
        return f"{text}; did you mean {near!r}?"
    return f"{text}; their names begin with: {', '.join(f'{name}.' for name in stages)}"
