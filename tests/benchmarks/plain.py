"""The hand-written loop that ftengine is measured against: torchvision's model, torch's optimizer, nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from ftengine.model import StreamBatch

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255


@dataclass
class Setup:
    """`bf16` computes as ``precision: auto`` does on a CPU with bf16 instructions: autocast and channels_last."""

    classes: int
    bf16: bool = False
    frozen: bool = False
    weights: dict[str, Tensor] | None = None
    seed: int = 0


@dataclass
class Loop:
    """A model with its optimizer; `step` counts the steps it has done, of `steps`."""

    setup: Setup
    lr: float
    steps: int

    def __post_init__(self) -> None:
        torch.manual_seed(self.setup.seed)
        self.model = resnet18(num_classes=self.setup.classes)
        if self.setup.weights is not None:
            backbone = {name: tensor for name, tensor in self.setup.weights.items() if not name.startswith("fc.")}
            self.model.load_state_dict(backbone, strict=False)
        if self.setup.frozen:
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name.startswith("fc."))
        if self.setup.bf16:
            self.model.to(memory_format=torch.channels_last)
        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(trainable, lr=self.lr, momentum=0.9, weight_decay=1e-4)
        self.step = 0

    def mode(self) -> None:
        self.model.train()
        if self.setup.frozen:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def normalise(self, images: Tensor) -> Tensor:
        images = images.permute(0, 3, 1, 2)
        if not self.setup.bf16:
            images = images.contiguous()
        return images.float().sub_(MEAN).div_(STD)

    def epoch(self, batches: Iterable[StreamBatch]) -> None:
        """Train on every batch, with a cosine schedule over all steps."""
        self.mode()
        for batch in batches:
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * (1 + math.cos(math.pi * self.step / self.steps)) / 2
            images, labels = self.normalise(batch.images), batch.targets["classification"]["label"]
            with torch.autocast("cpu", torch.bfloat16, enabled=self.setup.bf16):
                loss = F.cross_entropy(self.model(images), labels)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1

    @torch.no_grad()
    def accuracy(self, batches: Callable[[], Iterable[StreamBatch]]) -> float:
        self.model.eval()
        right = total = 0
        for batch in batches():
            with torch.autocast("cpu", torch.bfloat16, enabled=self.setup.bf16):
                logits = self.model(self.normalise(batch.images))
            right += int((logits.argmax(1) == batch.targets["classification"]["label"]).sum())
            total += len(batch)
        return right / total
