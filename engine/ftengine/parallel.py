"""What a run of several processes has beside one of a single process: checks, a start alike, and what is shared."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ftengine.config_train import TrainConfig
from ftengine.dist import World
from ftengine.errors import ConfigError, FtengineError, Problem, TrainingError
from ftengine.guard import Fault
from ftengine.model import Model
from ftengine.signals import Interrupted, Signals

if TYPE_CHECKING:
    from ftengine.data import Stream

SYNCHRONISED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_settings(config: TrainConfig, size: int, device: torch.device) -> None:
    """Raises ConfigError for settings that `size` processes on this kind of device cannot have."""
    if size == 1:
        return
    problems = []
    parts = size * config.accumulate
    if config.batch % parts:
        below = config.batch // parts * parts
        choices = " or ".join(str(near) for near in (below, below + parts) if near)
        in_parts = f"in {config.accumulate} parts each " if config.accumulate > 1 else ""
        message = f"{config.batch} samples cannot be shared by {size} processes {in_parts}evenly; nearest: {choices}"
        problems.append(Problem("train.batch_size", message))
    if config.sync_batchnorm and device.type != "cuda":
        problems.append(Problem("train.sync_batchnorm", f"needs GPUs, and this run is on {device.type}"))
    if config.sync_batchnorm and config.auto_micro_batch:
        message = "with train.sync_batchnorm one process cannot compute its part again by itself; choose one"
        problems.append(Problem("train.auto_micro_batch", message))
    if problems:
        raise ConfigError(problems)


def synchronise_norms(model: nn.Module) -> None:
    """Make every BatchNorm of `model`, in place, one over the batches of all processes: torch's SyncBatchNorm.

    The modules themselves change their class, unlike with ``SyncBatchNorm.convert_sync_batchnorm``, which makes others
    without their hooks: a ResNet's stochastic depth is one. Raises FtengineError for a BatchNorm that does more.
    """
    for name, module in model.named_modules():
        if type(module) in SYNCHRONISED:
            module.__class__ = nn.SyncBatchNorm
            module.process_group = None  # that of all processes
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            raise FtengineError(
                f"train.sync_batchnorm: {name} is a {type(module).__name__}, which does more than BatchNorm and "
                "cannot be synchronised; choose another backbone, or leave this out"
            )


def start_alike(world: World, model: Model, streams: Mapping[str, Stream], resolved: Mapping[str, object]) -> None:
    """Give every process the weights of rank 0, on the run's device.

    Raises FtengineError where the config, the data or the model's shape is not that of rank 0.
    """
    if world.size == 1:
        return
    world.same("the config", resolved)
    world.same("the data", {name: stream.fingerprints for name, stream in streams.items()})
    world.same("the model", {name: (tuple(t.shape), str(t.dtype)) for name, t in model.state_dict().items()})
    world.copy_from_main([*model.parameters(), *model.buffers()])
    check_alike(world, model, "at the start")


def check_alike(world: World, model: nn.Module, when: str) -> None:
    """Raises TrainingError unless every process has the same weights, to the bit; a synchronisation point."""
    if world.size == 1:
        return
    sums = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.numel()]
    found = world.gather(torch.stack([checksum(tensor.detach()) for tensor in sums]).tolist())
    different = [rank for rank, other in enumerate(found) if other != found[0]]
    if different:
        raise TrainingError(
            f"{when} the weights of rank {different[0]} are not those of rank 0, though every step gives all processes "
            "the same\n  common causes: GPUs of different kinds, or a component that keeps a random state of its own"
        )


def checksum(tensor: Tensor) -> Tensor:
    """Two numbers, int64 [2] on the tensor's device, that all but surely differ where a bit of it does."""
    words = tensor.contiguous().flatten().view(WORDS[tensor.element_size()]).to(torch.int64)
    place = torch.arange(len(words), device=words.device) % 65521 + 1
    return torch.stack([words.sum(), (words * place).sum()])


def of_all(world: World, faults: Sequence[Fault]) -> list[Fault]:
    """The faults of a few steps as all processes saw them: of each step those whose loss it was, if anyone's."""
    if world.size == 1 or not faults:
        return list(faults)
    merged = []
    for seen in zip(*world.gather(list(faults)), strict=True):
        chosen = [fault for fault in seen if fault.what == "loss"] or list(seen)
        merged.append(replace(chosen[0], ids=[name for fault in chosen for name in fault.ids]))
    return merged


def agree_on_signals(world: World, signals: Signals) -> None:
    """Raises Interrupted, in all processes of a run, if one of them has received a signal."""
    if world.size > 1 and (number := world.largest([signals.received or 0])[0]):
        signals.received = signal.Signals(number)
        raise Interrupted(signals.received.name)
