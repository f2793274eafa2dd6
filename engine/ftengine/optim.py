"""Parameter groups, the optimizer, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftengine.errors import CheckpointError
from ftengine.model import Model
from ftengine.optimizers import Optimizer
from ftengine.schedule import Schedule


def build_optimizer(model: Model, options: Optimizer) -> torch.optim.Optimizer:
    """One parameter group a stage and head, over *all* parameters: frozen ones are in it and have no gradient."""
    arguments = options.arguments()
    groups = [
        {"params": parameters, "name": name, "weight_decay": options.weight_decay}
        for name, parameters in model.stage_parameters().items()
        if parameters
    ]
    optimizer: torch.optim.Optimizer = getattr(torch.optim, options.torch_name)(groups, **arguments)
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    return optimizer


def set_learning_rates(
    optimizer: torch.optim.Optimizer, schedule: Schedule, step: int, steps: int, steps_per_epoch: int
) -> float:
    """Set every group's rate for `step`, from 0; returns the factor."""
    factor = schedule.factor(step, steps, steps_per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return factor


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of each parameter, as tensors called ``<parameter>/<key>`` and as JSON data of the same names."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            name = f"{names[id(parameter)]}/{key}"
            if isinstance(value, Tensor):
                tensors[name] = value
            else:
                plain[name] = value
    return tensors, plain


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
) -> None:
    """Take back what :func:`optimizer_state` returned; torch decides where each tensor lives."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ordered = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *plain.items()]:
        parameter, _, key = name.rpartition("/")
        if parameter not in ordered:
            raise CheckpointError(f"the optimizer state holds {parameter!r}, which the model does not have")
        state.setdefault(ordered.index(parameter), {})[key] = value
    packed = optimizer.state_dict()
    packed["state"] = state
    optimizer.load_state_dict(packed)
