"""The policies that freeze the same from beginning to end."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence

from ftengine.errors import FtengineError, nearest
from ftengine.plugin import Options
from ftengine.protocols import FreezeContext, FreezePolicy, Progress
from ftengine_freeze.names import check_stages, check_trainable, with_parameters
from ftengine_freeze.plugin import PatternsOptions, StagesOptions, SurgicalOptions

BLOCKS = ("first", "middle", "last")


class Fixed(FreezePolicy):
    """The same names are frozen whatever the progress."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)

    def frozen(self, stages: Mapping[str, Sequence[str]], progress: Progress) -> set[str]:
        return set(self.names)


def none(options: Options, context: FreezeContext) -> Fixed:
    """A policy that freezes nothing."""
    return Fixed(())


def all_stages(options: Options, context: FreezeContext) -> Fixed:
    """A policy that freezes the whole backbone."""
    return Fixed(context.stages)


def stages(options: StagesOptions, context: FreezeContext) -> Fixed:
    """A policy that freezes whole stages. FtengineError for a stage that the backbone does not have."""
    if options.only is not None:
        check_stages("only", options.only, context)
        return Fixed(options.only)
    through, order = str(options.through), list(context.stages)
    check_stages("through", [through], context)
    return Fixed(order[: order.index(through) + 1])


def patterns(options: PatternsOptions, context: FreezeContext) -> Fixed:
    """A policy that freezes parameters of stages and heads by globs, in which case matters.

    FtengineError for a glob that matches none of them.
    """
    parts = {**context.stages, **context.heads}
    names = [name for within in parts.values() for name in within]
    matches = {glob: fnmatch.filter(names, glob) for glob in options.patterns}
    wrong = [glob for glob, found in matches.items() if not found]
    if wrong:
        raise FtengineError(f"freeze.patterns: {'; '.join(_no_match(glob, names, list(parts)) for glob in wrong)}")
    return Fixed(name for found in matches.values() for name in found)


def surgical(options: SurgicalOptions, context: FreezeContext) -> Fixed:
    """Surgical fine-tuning (Lee et al. 2023, arXiv 2210.11466): of the backbone, one block of stages trains.

    The blocks are the stages that have parameters, in order, cut into three as evenly as possible; what is left over
    goes one each to the earlier ones: of four stages, two, one and one. FtengineError for a stage that the backbone
    does not have or that has no parameters, and for a block of fewer than three stages.
    """
    order = with_parameters(context)
    if options.stages is not None:
        check_trainable("stages", options.stages, context)
        chosen = set(options.stages)
    elif len(order) < len(BLOCKS):
        raise FtengineError(
            f"freeze.block: {', '.join(order) or 'no stage'} cannot be cut into three blocks; name the stages that "
            "train in freeze.stages"
        )
    else:
        index, (size, longer) = BLOCKS.index(options.block or "last"), divmod(len(order), len(BLOCKS))
        first = index * size + min(index, longer)
        chosen = set(order[first : first + size + (index < longer)])
    return Fixed(stage for stage in context.stages if stage not in chosen)


def bias_only(options: Options, context: FreezeContext) -> Fixed:
    """BitFit (Ben Zaken et al. 2022, arXiv 2106.10199): of the backbone, only biases train, those of norms too.

    FtengineError if the backbone has none.
    """
    return _only(
        "bias_only", "biases (parameters named bias or …_bias)", lambda name: name.endswith((".bias", "_bias")), context
    )


def norm_only(options: Options, context: FreezeContext) -> Fixed:
    """Of the backbone, only normalisation layers' weights and biases train (Frankle et al. 2021, arXiv 2003.00152).

    FtengineError if the backbone has none.
    """
    return _only("norm_only", "normalisation layers with parameters", lambda name: name in context.norms, context)


def _only(policy: str, what: str, trains: Callable[[str], bool], context: FreezeContext) -> Fixed:
    """All but the parameters that `trains` says; stages without any of those as a whole."""
    frozen: set[str] = set()
    for stage, names in context.stages.items():
        still = [name for name in names if not trains(name)]
        frozen |= set(still) if len(still) < len(names) else {stage}
    if frozen >= set(context.stages):
        raise FtengineError(
            f"freeze.name: {policy} finds no {what} in the backbone ({', '.join(context.stages)}), of which nothing "
            "would train; use `all` to train the heads alone, or `surgical` to train some stages"
        )
    return Fixed(frozen)


def _no_match(glob: str, names: list[str], parts: list[str]) -> str:
    text = f"{glob!r} matches no parameter of the backbone or the heads"
    if glob in parts:
        return f"{text}; for all of it write '{glob}.*'"
    # Where only the stage is misspelt, the same glob in the stage that was meant is the better hint.
    stage, dot, rest = glob.partition(".")
    corrected = f"{nearest(stage, parts)}{dot}{rest}"
    near = corrected if fnmatch.filter(names, corrected) else nearest(glob.strip("*"), names)
    if near:
        return f"{text}; did you mean {near!r}?"
    return f"{text}; their names begin with: {', '.join(f'{name}.' for name in parts)}"
