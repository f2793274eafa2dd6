"""Device, autocast, gradient scaling, memory format and compilation, behind one object."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from ftengine.config_train import TrainConfig
from ftengine.errors import FtengineError
from ftengine.launch import Launch
from ftengine.model import Model
from ftengine.narrow import mend_strided, mend_volumes

Name = Literal["fp32", "bf16", "fp16"]


def pick_device(wanted: str, launch: Launch = Launch()) -> torch.device:  # noqa: B008 - it is frozen
    """The device a run uses; raises FtengineError for one that is not there.

    Of several processes each gets a GPU of its own, by its number on its machine.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if wanted == "auto":
        wanted = "cpu" if accelerator is None else accelerator.type
    if launch.size > 1 and wanted != "cpu":
        if not wanted.startswith("cuda"):
            raise FtengineError(f"train.device: several processes train on cpu or cuda, not on {wanted}")
        if ":" in wanted:
            raise FtengineError(f"train.device: {wanted} is one device for {launch.size} processes; say cuda")
        wanted = f"cuda:{launch.local_rank}"
    device = torch.device(wanted)
    if device.type == "cpu":
        return device
    available = "cpu" if accelerator is None else f"cpu, {accelerator.type}"
    if accelerator is None or device.type != accelerator.type:
        raise FtengineError(f"train.device: {wanted} is not available on this machine; available: {available}")
    if device.index is not None and device.index >= torch.accelerator.device_count():
        found = f"devices: {torch.accelerator.device_count()}"
        more = "" if launch.size == 1 else "; start as many processes on this machine, or set CUDA_VISIBLE_DEVICES"
        raise FtengineError(f"train.device: there is no {wanted}; {found}{more}")
    return device


def _cpu_computes_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware; elsewhere bf16 is slower than fp32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def pick_precision(wanted: str, device: torch.device) -> Name:
    """`auto` is bf16 where the device computes in it, else fp16 on a GPU and fp32 on a CPU."""
    if wanted in ("fp32", "bf16"):
        return "fp32" if wanted == "fp32" else "bf16"
    if wanted == "fp16":
        if device.type == "cpu":
            raise FtengineError("train.precision: fp16 needs a GPU; a CPU computes in fp32 or bf16")
        return "fp16"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and _cpu_computes_bf16() else "fp32"


class Precision:
    """How a run computes. `scaler` does nothing unless the precision is fp16."""

    def __init__(self, config: TrainConfig, channels_last: bool, launch: Launch = Launch()) -> None:  # noqa: B008
        self.device = pick_device(config.device, launch)
        self.name = pick_precision(config.precision, self.device)
        self.channels_last = channels_last if config.channels_last == "auto" else config.channels_last
        self.compile = config.compile
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")

    def autocast(self) -> torch.autocast:
        """A context in which the forward pass runs."""
        dtype = torch.float16 if self.name == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.name != "fp32")

    def place(self, model: Model) -> None:
        """Move to the device, into the memory format, and compile the backbone, in place."""
        model.to(self.device)
        if self.channels_last:
            model.memory_format = torch.channels_last if model.backbone.clip is None else torch.channels_last_3d
            for module in model.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    module.to(memory_format=torch.channels_last)
                elif isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                    module.to(memory_format=torch.channels_last_3d)
        if self.device.type == "cpu" and self.name == "bf16":
            mend_strided(model)
            mend_volumes(model)
        if self.compile:
            model.backbone.compile()  # not the heads: they see the ids, which change at each step

    def state(self) -> dict[str, Any]:
        """The scaler's state; empty unless the precision is fp16."""
        return dict(self.scaler.state_dict())
