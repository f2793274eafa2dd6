"""The learning-rate range test (Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3).

The rate grows from step to step, by the same factor each time, until the loss diverges; the rates at which the loss
fell are those to train with. The steps are those of a run: :func:`ftengine.loop.take_step`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from ftengine.errors import FtengineError, TrainingError
from ftengine.guard import NumberGuard
from ftengine.loading import feed
from ftengine.lr_curve import Curve
from ftengine.meter import Meter
from ftengine.model import Model, StreamBatch
from ftengine.optimizers import Rprop
from ftengine.signals import Interrupted
from ftengine.step import take_step
from ftengine.training import Training


def range_test(
    training: Training, lowest: float, highest: float, steps: int, advance: Callable[[Curve], None] | None = None
) -> Curve:
    """Try `steps` learning rates from `lowest` to `highest` on the batches that come next in `training`.

    The rates are the optimizer's `lr`: each parameter group keeps its ratio to it. What the freeze policy says of the
    epoch in which the test begins holds to its end; batches go on in the next epoch. The test ends early when the
    smoothed loss exceeds 4 times its minimum, when the loss is not finite, or on a signal. Each step synchronises: its
    loss decides whether there is a next one. `advance` is told of the curve after each.

    `training` and all that it holds is left as it was, to the bit, however the test ends. torch's generators are not
    part of that: every step seeds them.
    """
    optimizer = training.plan.optimizer
    if isinstance(optimizer, Rprop):
        raise FtengineError(
            "optimizer.name: rprop finds the step of each weight by itself, and its `lr` is only the first one: no "
            "learning rate is to be found for it; choose another optimizer, such as sgd or adamw"
        )
    curve = Curve(lowest, highest, steps)
    before = _State(training)
    try:
        trial = _trial(training)
        trial.begin_epoch(trial.step // trial.steps_per_epoch)
        feeds = {name: feed(trial, name, trial.step, trial.step + steps) for name in trial.streams}
        while not curve.over:
            factor = curve.rate(len(curve.points)) / optimizer.lr
            for group in trial.optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            curve.add(_step(trial, feeds))
            trial.step += 1
            if advance is not None:
                advance(curve)
            if not curve.over:
                training.signals.check()
    except Interrupted:
        curve.end = "interrupted"
    finally:
        before.restore()
    return curve


def _trial(training: Training) -> Training:
    """`training` with the same model, optimizer and data, and with all else that a step changes its own."""
    trial = copy.copy(training)
    trial.guard, trial.meter = NumberGuard(training.steps_per_epoch), Meter()
    trial.precision = copy.copy(training.precision)
    trial.precision.scaler = copy.deepcopy(training.precision.scaler)
    model = training.model
    shared = {id(part): part for part in (*model.modules(), *model.parameters(), *model.buffers())}
    trial.freezer, trial.audit = copy.deepcopy((training.freezer, training.audit), shared)
    return trial


def _step(trial: Training, feeds: Mapping[str, Iterator[StreamBatch]]) -> float:
    """Move the weights once; the loss before that, NaN if it is not finite."""
    try:
        take_step(trial, feeds, trial.step)
        trial.check_numbers()
    except TrainingError:  # the guard's: what a range test looks for
        return math.nan
    except Exception:  # a head that checks its numbers, say, and the last step has made them NaN
        if _finite(trial.model):
            raise
        return math.nan
    return trial.meter.take()["loss"]


def _finite(model: Model) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in (*model.parameters(), *model.buffers()))


class _State:
    """What steps change in a run's model and optimizer; tensors are copied to the CPU, where there is room."""

    def __init__(self, training: Training) -> None:
        self.model, self.optimizer = training.model, training.optimizer
        self.tensors = {
            name: tensor.detach().to("cpu", copy=True)
            for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers())
        }
        parameters = list(self.model.parameters())
        self.flags = [(parameter, parameter.requires_grad, parameter.grad) for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        self.modes = [(module, module.training) for module in self.model.modules()]
        self.attributes = dict(vars(self.model))
        self.state = {parameter: copy.deepcopy(own) for parameter, own in self.optimizer.state.items()}
        self.groups: list[dict[str, Any]] = [dict(group) for group in self.optimizer.param_groups]

    @torch.no_grad()
    def restore(self) -> None:
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            tensor.copy_(self.tensors[name])
        for parameter, trains, gradient in self.flags:
            parameter.requires_grad_(trains)
            parameter.grad = gradient
        vars(self.model).update(self.attributes)
        for module, mode in self.modes:
            module.training = mode
        self.optimizer.state.clear()
        self.optimizer.state.update(self.state)
        for group, own in zip(self.optimizer.param_groups, self.groups, strict=True):
            group.clear()
            group.update(own)
