"""Names in a policy's options, checked against what the backbone has."""

from __future__ import annotations

from collections.abc import Iterable

from ftengine.errors import FtengineError, unknown
from ftengine.protocols import FreezeContext


def with_parameters(context: FreezeContext) -> list[str]:
    """The stages, in order, without those that have nothing to train, such as a pooling layer."""
    return [stage for stage, names in context.stages.items() if names]


def check_stages(option: str, names: Iterable[str], context: FreezeContext) -> None:
    """FtengineError, at ``freeze.<option>``, if any of `names` is not a stage of the backbone."""
    order = list(context.stages)
    wrong = [unknown("stage", name, order) for name in names if name not in context.stages]
    if wrong:
        raise FtengineError(f"freeze.{option}: {'; '.join(wrong)} (the backbone's stages: {', '.join(order)})")


def check_trainable(option: str, names: Iterable[str], context: FreezeContext) -> None:
    """As `check_stages`; also if any of `names` has no parameters, so that it cannot train."""
    names = list(names)
    check_stages(option, names, context)
    empty = [name for name in names if not context.stages[name]]
    if empty:
        raise FtengineError(
            f"freeze.{option}: nothing in {', '.join(empty)} can train; stages with parameters: "
            f"{', '.join(with_parameters(context))}"
        )
