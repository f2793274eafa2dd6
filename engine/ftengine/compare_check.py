"""Whether what a comparison would run can be run: every model is built and frozen before anything trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from ftengine.build import Built, make_model, make_streams, make_tasks
from ftengine.errors import FtengineError
from ftengine.freeze import Freezer, freeze_context
from ftengine.mixing import Mixing
from ftengine.optim import build_optimizer
from ftengine.plan import Plan
from ftengine.protocols import Progress, Task
from ftengine.regularize import make_regularizers


def read_tasks(plan: Plan) -> dict[str, Task]:
    """The tasks of `plan`, fitted on its data, every target of which has been checked."""
    tasks = make_tasks(plan)
    make_streams(plan, tasks)
    return tasks


def try_to_build(plan: Plan, tasks: Mapping[str, Task]) -> Built:
    """Build what a run of `plan` would train, on the CPU, and go through its freezing from the first epoch to the last.

    Raises FtengineError for what cannot be: nothing to adapt, a policy longer than the run, rules that match nothing.
    """
    built = make_model(plan, tasks)
    model, adapted = built.model, built.adapter is not None
    if plan.config.mix is not None:
        Mixing(plan.config.mix, tasks)
    build_optimizer(model, plan.optimizer, plan.config.optimizer)
    if plan.regularizers:
        make_regularizers(plan, model, model.state_dict(), adapted=adapted)
    freezer = Freezer(model, built.freeze, plan.config.freeze.frozen_norm)
    epochs = plan.config.train.epochs
    for epoch in range(epochs):
        progress = Progress(epoch, epochs)
        if built.freeze.batches_to_measure(progress):  # any numbers: whether the choice is possible, not which it is
            built.freeze.measured(
                {stage: 1.0 for stage, names in freeze_context(model, epochs).stages.items() if names}
            )
        freezer.apply(progress)
    return built


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
