"""Stock models of torchvision and segmentation-models-pytorch in plain loops, on the batches that ftengine makes.

ResNet-18 everywhere, so that a CPU can train them; what surrounds it is the library's own class, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.segmentation import FCN, DeepLabV3
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from ftengine.model import StreamBatch
from ftengine.protocols import IGNORE, Prediction

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def detector(classes: int, size: int, longest: int, weights: Path | None) -> nn.Module:
    """torchvision's Faster R-CNN with a feature pyramid on ResNet-18, of the sizes of the head's preset `small`."""
    torch.manual_seed(0)
    body = resnet18()
    if weights is not None:
        _load(body, weights)
    layers = {f"layer{i}": str(i - 1) for i in range(1, 5)}
    backbone = BackboneWithFPN(body, layers, [64, 128, 256, 512], out_channels=64)
    anchors = AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 5)
    return FasterRCNN(
        backbone,
        min_size=size,
        max_size=longest,
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=300,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_train=150,
        rpn_post_nms_top_n_test=100,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=64,
        box_head=TwoMLPHead(64 * 7 * 7, 256),
        box_predictor=FastRCNNPredictor(256, classes + 1),
    )


def segmenter(name: str, classes: int, weights: Path | None) -> nn.Module:
    """torchvision's FCN or DeepLab v3, or segmentation-models-pytorch's U-Net, on ResNet-18."""
    torch.manual_seed(0)
    if name == "unet":
        model: nn.Module = smp.Unet("resnet18", encoder_weights=None, classes=classes)
        body = model.encoder
    else:
        body = IntermediateLayerGetter(resnet18(), {"layer4": "out"})
        model = FCN(body, FCNHead(512, classes)) if name == "fcn" else DeepLabV3(body, DeepLabHead(512, classes))
    if weights is not None:
        _load(body, weights)
    return model


def _load(body: nn.Module, file: Path) -> None:
    tensors = {name: tensor.float() for name, tensor in load_file(file).items() if not name.startswith("fc.")}
    differences = nn.Module.load_state_dict(body, tensors, strict=False)
    assert set(differences.missing_keys) <= {"fc.weight", "fc.bias"}, differences


class Plain:
    """A model with AdamW; `rate` gives the learning rate of each step, of which `step` are done."""

    def __init__(self, model: nn.Module, rate: Callable[[int], float], bf16: bool, device: torch.device) -> None:
        self.model = model.to(device, memory_format=torch.channels_last if bf16 else torch.contiguous_format)
        self.bf16, self.device = bf16, device
        self.optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
        self.rate, self.step = rate, 0

    def train(self, batches: Iterable[StreamBatch]) -> list[float]:
        """Train on every batch; the losses."""
        self.model.train()
        losses = []
        for batch in (batch.to(self.device) for batch in batches):
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(self.step)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                loss = self.loss(batch)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
            self.step += 1
        return losses

    def evaluate(self, batches: Iterable[StreamBatch], metric: Any) -> dict[str, float]:
        """`metric` over the batches."""
        self.model.eval()
        with torch.no_grad():
            for batch in batches:
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    predictions = self.predict(batch.to(self.device))
                metric.update(predictions, next(iter(batch.truths.values())))
        values: dict[str, float] = metric.compute()
        return values

    def loss(self, batch: StreamBatch) -> Tensor:
        raise NotImplementedError

    def predict(self, batch: StreamBatch) -> list[Prediction]:
        raise NotImplementedError


class PlainDetector(Plain):
    """torchvision's model normalises, resizes (not at all here) and pads by itself."""

    def images(self, batch: StreamBatch) -> list[Tensor]:
        floats = batch.images.permute(0, 3, 1, 2).float().div_(255)
        pairs = zip(floats, batch.frames, strict=True)
        return [image[:, : frame.size[0], : frame.size[1]] for image, frame in pairs]

    def loss(self, batch: StreamBatch) -> Tensor:
        (own,) = batch.targets.values()
        pairs = zip(own["boxes"], own["labels"], strict=True)
        targets = [{"boxes": boxes.float(), "labels": labels + 1} for boxes, labels in pairs]
        return sum(self.model(self.images(batch), targets).values())

    def predict(self, batch: StreamBatch) -> list[Prediction]:
        found = self.model(self.images(batch))
        return [
            {
                "boxes": frame.to_original(one["boxes"].float()).cpu(),
                "scores": one["scores"].float().cpu(),
                "labels": one["labels"].cpu() - 1,
            }
            for one, frame in zip(found, batch.frames, strict=True)
        ]


class PlainSegmenter(Plain):
    """Cross-entropy of the logits, without ignored pixels."""

    def logits(self, batch: StreamBatch) -> Tensor:
        images = batch.images.permute(0, 3, 1, 2).float().div_(255)
        images = (images - MEAN.to(images).view(1, 3, 1, 1)) / STD.to(images).view(1, 3, 1, 1)
        output = self.model(images.contiguous(memory_format=torch.channels_last) if self.bf16 else images)
        return output if isinstance(output, Tensor) else output["out"]

    def loss(self, batch: StreamBatch) -> Tensor:
        (own,) = batch.targets.values()
        return F.cross_entropy(self.logits(batch).float(), own["mask"].long(), ignore_index=IGNORE)

    def predict(self, batch: StreamBatch) -> list[Prediction]:
        logits = self.logits(batch).float()
        pairs = zip(logits, batch.frames, strict=True)
        return [{"mask": frame.restore(maps).argmax(0).to(torch.uint8).cpu()} for maps, frame in pairs]
