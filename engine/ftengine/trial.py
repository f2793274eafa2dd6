"""Whether what a config asks for can be built: all that a run builds before its first step, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping

from ftengine.build import Built, make_model, make_streams, make_tasks
from ftengine.effects import check_effects
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
    regularizers = make_regularizers(plan, model, model.state_dict(), adapted=adapted)
    freezer = Freezer(model, built.freeze, plan.config.freeze.frozen_norm)
    epochs = plan.config.train.epochs
    check_effects(plan, freezer, regularizers)
    for epoch in range(epochs):
        progress = Progress(epoch, epochs)
        if built.freeze.batches_to_measure(progress):  # any numbers: whether the choice is possible, not which it is
            built.freeze.measured(
                {stage: 1.0 for stage, names in freeze_context(model, epochs).stages.items() if names}
            )
        freezer.apply(progress)
    return built
