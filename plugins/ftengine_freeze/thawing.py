"""The policies under which the backbone unfreezes on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftengine.errors import FtengineError
from ftengine.protocols import FreezeContext, FreezePolicy, Progress
from ftengine_freeze.names import check_trainable, with_parameters
from ftengine_freeze.plugin import GradualOptions, LpFtOptions


class Thawing(FreezePolicy):
    """`starts`: the epoch, counted from 0, from which each stage trains; a stage that is not in it never does."""

    def __init__(self, starts: Mapping[str, int]) -> None:
        self.starts = dict(starts)

    def frozen(self, stages: Mapping[str, Sequence[str]], progress: Progress) -> set[str]:
        return {stage for stage in stages if stage not in self.starts or progress.epoch < self.starts[stage]}


def gradual(options: GradualOptions, context: FreezeContext) -> Thawing:
    """Gradual unfreezing (Howard & Ruder 2018, arXiv 1801.06146): first the heads train, then stages from the top down.

    Of n stages that unfreeze, the i-th from the head (i = 1 … n) does at epoch ``i * epochs_per_stage``, or, where
    that is left out, at ``max(1, floor(i * epochs / (n + 1)))``. Stages without parameters do not count. FtengineError
    for a stage that the backbone does not have, and for a run that ends before the last would train or has but one
    epoch.
    """
    order = with_parameters(context)
    if options.until is not None:
        check_trainable("until", [options.until], context)
        order = order[order.index(options.until) :]
    count, epochs, each = len(order), context.epochs, options.epochs_per_stage
    if each is not None and count * each >= epochs:
        most = (epochs - 1) // count
        smaller = f"at most {most} would do, or " if most else ""
        raise FtengineError(
            f"freeze.epochs_per_stage: with {each} epochs for each of {count} stages {order[0]} would unfreeze after "
            f"epoch {count * each} and never train: the run has {epochs}; {smaller}train.epochs of at least "
            f"{count * each + 1}, or fewer stages by freeze.until; or leave it out, to spread them over the run"
        )
    if epochs == 1:
        raise FtengineError(
            "freeze.name: a run of one epoch has no time to unfreeze anything later, so gradual would train everything "
            "from the start; use train.epochs of at least 2, or `freeze: none`"
        )
    times = range(1, count + 1)
    starts = [index * each if each is not None else max(1, index * epochs // (count + 1)) for index in times]
    by_stage = dict(zip(reversed(order), starts, strict=True))
    # What has no parameters may still have running statistics: they are frozen as long as the stage above it is.
    epoch, lowest = 0, options.until or next(iter(context.stages))
    for stage in reversed(list(context.stages)):
        epoch = by_stage.setdefault(stage, epoch)
        if stage == lowest:
            break
    return Thawing(by_stage)


def lp_ft(options: LpFtOptions, context: FreezeContext) -> Thawing:
    """Linear probing, then fine-tuning (Kumar et al. 2022, arXiv 2202.10054): the heads alone, then everything.

    FtengineError if the probe leaves no epoch to fine-tune.
    """
    probe = max(1, context.epochs // 2) if options.probe_epochs is None else options.probe_epochs
    if probe >= context.epochs:
        most = context.epochs - 1
        shorter = f"at most {most} would do, or " if most else ""
        raise FtengineError(
            f"freeze.probe_epochs: lp_ft trains the heads alone for {probe} of the run's {context.epochs} epochs, "
            f"which leaves none to fine-tune; {shorter}train.epochs of at least {probe + 1}, or `freeze: all` to train "
            "the heads alone"
        )
    return Thawing(dict.fromkeys(context.stages, probe))
