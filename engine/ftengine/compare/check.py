"""Whether what a comparison would run can be run: every model is built and frozen before anything trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from ftengine.errors import FtengineError
from ftengine.plan import Plan
from ftengine.protocols import Task
from ftengine.trial import read_tasks, try_to_build


def errors(plans: Mapping[str, Plan], tasks: Mapping[str, Task]) -> dict[str, FtengineError]:
    """What keeps each of `plans` from being built."""
    found = {}
    for name, plan in plans.items():
        try:
            try_to_build(plan, tasks)
        except FtengineError as error:
            found[name] = error
    return found


def fewest_epochs(possible: Callable[[int], bool], low: int, high: int) -> int | None:
    """The fewest epochs above `low`, up to `high`, that are possible; None if `high` is not.

    What is possible with some epochs is so with more.
    """
    if high <= low or not possible(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if possible(middle) else (middle, high)
    return high


def check_retained(plan: Plan, own: Mapping[str, Tensor]) -> None:
    """Raises FtengineError unless the backbone of the retain task can take the weights of `own`, the compared one's."""
    built = try_to_build(plan, read_tasks(plan))
    theirs = built.model.backbone.stages.state_dict()
    absent = sorted(theirs.keys() - own.keys())
    if absent:
        raise FtengineError(
            f"its head needs more of the backbone than the compared one has, from {absent[0]} on: choose a head of "
            f"levels that both have ({', '.join(built.model.backbone.levels)} are its own)"
        )
    for name, tensor in theirs.items():
        if tensor.shape != own[name].shape:
            raise FtengineError(
                f"the compared backbone's {name} is of {list(own[name].shape)}, this one's of {list(tensor.shape)}: "
                "give both the same image.size"
            )
