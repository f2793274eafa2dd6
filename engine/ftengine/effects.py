"""What a config asks for and freezing leaves without effect is refused before training."""

from __future__ import annotations

from ftengine.errors import FtengineError
from ftengine.freeze import Freezer
from ftengine.plan import Plan
from ftengine.regularize import Regularizers


def check_effects(plan: Plan, freezer: Freezer, regularizers: Regularizers) -> None:
    """Raises FtengineError, with what to do instead, for an option that could do nothing in this run.

    Nothing is said of a policy that decides by gradients which it has yet to measure.
    """
    config = plan.config
    freezer.check(config.train.epochs)
    forecast = freezer.forecast(config.train.epochs)
    if forecast is None:
        return
    policy, epochs, warmup = plan.freeze.component.name, config.train.epochs, config.freeze.warmup_epochs
    if config.freeze.frozen_norm == "train" and not forecast.anything_frozen:
        raise FtengineError(f"freeze.frozen_norm: the policy {policy!r} freezes nothing, so this does nothing")
    if warmup and forecast.first_thaw is None:
        raise FtengineError(
            f"freeze.warmup_epochs: with the policy {policy!r} nothing unfreezes during the run, so this does nothing; "
            "`schedule.warmup_epochs` warms up from the first step"
        )
    if warmup and forecast.first_thaw is not None and warmup >= (left := epochs - forecast.first_thaw):
        raise FtengineError(
            f"freeze.warmup_epochs: a warm-up of {warmup:g} epochs in the {left} that are left of the run of {epochs} "
            f"when the first part unfreezes: give less than {left}, or more `train.epochs`"
        )
    if forecast.backbone_trains:
        return
    still = f"the policy {policy!r} keeps the whole backbone frozen to the end"
    if plan.adapter is not None:
        raise FtengineError(
            f"adapter: nothing of it would train, as {still}; leave out either `adapter`, to train the heads alone, "
            "or `freeze`"
        )
    if config.train.wise_ft is not None and not config.train.wise_ft.heads:
        raise FtengineError(f"train.wise_ft: {still}, so that its start and its end are the same")
    for name, regularizer in regularizers.parts:
        if regularizer.backbone_only:
            raise FtengineError(f"regularizers: {name} is of the backbone, and {still}: leave one of them out")
