"""The optimizer, its learning rates, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftengine.config_refs import OptimizerRef
from ftengine.errors import CheckpointError
from ftengine.groups import parameter_groups
from ftengine.model import Model
from ftengine.optimizers import SGD, Optimizer

WARMUP_START = 0.01
"""Part of its learning rate with which something that unfreezes begins to rise."""


def build_optimizer(
    model: Model,
    options: Optimizer,
    ref: OptimizerRef = OptimizerRef(),  # noqa: B008 - it is frozen
) -> torch.optim.Optimizer:
    """The optimizer over *all* parameters: frozen ones are in it and have no gradient, so it is never built anew.

    `ref` says the rates by place; :func:`ftengine.groups.parameter_groups` says what the groups hold, and raises
    FtengineError for rules that cannot be meant.
    """
    groups = parameter_groups(model, options, ref)
    arguments = options.arguments()
    fused = fuses(options, next(model.parameters()).device)
    if fused:
        arguments["fused"] = True
    optimizer: torch.optim.Optimizer = getattr(torch.optim, options.torch_name)(groups, **arguments)
    if fused and isinstance(options, SGD) and options.momentum > 0:
        optimizer.register_step_pre_hook(_start_momentum)
    return optimizer


def fuses(options: Optimizer, device: torch.device) -> bool:
    """Whether the optimizer is built in its fused form: on a GPU, where there is one that can leave a step out.

    With dampening, SGD's first step is another than the later ones, and one that is left out must not count as it.
    """
    dampened = isinstance(options, SGD) and options.dampening > 0
    return device.type == "cuda" and options.has_fused and not dampened


def _start_momentum(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Momentum begins at zero: torch's fused SGD leaves it uninitialised where the first step is left out."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and "momentum_buffer" not in (state := optimizer.state[parameter]):
                state["momentum_buffer"] = torch.zeros_like(parameter)


def set_learning_rates(
    optimizer: torch.optim.Optimizer, factor: float, epochs: float = 0.0, warmup_epochs: float = 0.0
) -> None:
    """Set every group's rate to its `base_lr` times the schedule's `factor`.

    `epochs` is the run's position, step / steps per epoch. A group that was unfrozen at epoch `since` > 0 gets, while
    `since` <= epochs < since + `warmup_epochs`, a part that rises linearly from 0.01 to 1.
    """
    for group in optimizer.param_groups:
        ramp = 1.0
        if group["since"] > 0 and warmup_epochs > 0:
            part = min(1.0, max(0.0, (epochs - group["since"]) / warmup_epochs))
            ramp = WARMUP_START + (1 - WARMUP_START) * part
        group["lr"] = group["base_lr"] * factor * ramp


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
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    position = {names[id(parameter)]: index for index, parameter in enumerate(parameters)}
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *plain.items()]:
        parameter, _, key = name.rpartition("/")
        if parameter not in position:
            raise CheckpointError(f"the optimizer state holds {parameter!r}, which the model does not have")
        state.setdefault(position[parameter], {})[key] = value
    packed = optimizer.state_dict()
    packed["state"] = state
    optimizer.load_state_dict(packed)
