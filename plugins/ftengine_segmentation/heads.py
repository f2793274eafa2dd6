"""What all segmentation heads share, and torchvision's own: FCN and DeepLab v3."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from ftengine.errors import FtengineError
from ftengine.protocols import Batch, Frame, Head, HeadContext, Output, Prediction, Window
from ftengine_segmentation.head_options import DeepLabOptions, FcnOptions
from ftengine_segmentation.published import published

MAX_VALUES = 2**26
"""Most values of logits in an original image's size that are held at a time: 256 MB."""


class SegmentationHead(Head):
    """A logit for each class and pixel.

    `forward` returns ``{"logits": float32 [B, C, H, W]}`` of the batch tensor's size, in training with
    ``"aux_logits"``, likewise, if there is an auxiliary classifier. `predict` returns ``{"mask": uint8 [H, W]}`` of
    each original image's size: for each pixel the index of the class with the highest logit.

    `name` is for messages. `pooled_norm` says that a BatchNorm layer comes after global pooling, so that in training
    one image is too few: such a head raises FtengineError then.
    """

    def __init__(self, name: str, *, pooled_norm: bool = False) -> None:
        super().__init__()
        self.name = name
        self.pooled_norm = pooled_norm

    @abstractmethod
    def maps(self, features: dict[str, Tensor], images: Tensor) -> Output:
        """What `forward` returns, by the same names, but of any size: [B, C, H', W']."""

    def forward(self, features: dict[str, Tensor], batch: Batch) -> Output:
        if self.training and self.pooled_norm and len(batch.images) == 1:
            raise FtengineError(
                f"head {self.name}: in training its BatchNorm after global pooling needs at least 2 images at a time, "
                "got 1: raise train.batch_size, or lower train.accumulate"
            )
        size = batch.images.shape[-2:]
        maps = self.maps(features, batch.images)
        # In float32 before they grow: the loss needs it, and so there is one large copy instead of two.
        return {name: resize(logits.float(), size) for name, logits in maps.items()}

    def predict(self, output: Output, batch: Batch) -> list[Prediction]:
        logits = output["logits"].detach()
        masks = [classes(own, frame) for own, frame in zip(logits, batch.frames, strict=True)]
        return [{"mask": mask.cpu()} for mask in masks]

    def merge(self, outputs: Sequence[Output], windows: Sequence[Window], size: tuple[int, int]) -> Output:
        """The mean of the logits of all windows over a pixel."""
        first = outputs[0]["logits"]
        total = first.new_zeros(*first.shape[:2], *size)
        count = first.new_zeros(size)
        for output, window in zip(outputs, windows, strict=True):
            rows = slice(window.top, window.top + window.height)
            columns = slice(window.left, window.left + window.width)
            total[:, :, rows, columns] += output["logits"]
            count[rows, columns] += 1
        return {"logits": total / count}


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps, float [B, C, H, W], at `size`, (height, width): bilinear, as torchvision does."""
    if maps.shape[-2:] == tuple(size):
        return maps
    return functional.interpolate(maps, size=list(size), mode="bilinear", align_corners=False)


def classes(logits: Tensor, frame: Frame) -> Tensor:
    """The class with the highest logit, uint8 [*frame.original], from logits of the whole tensor, float [C, H, W].

    A few classes at a time, so that a large image with many classes does not fill the memory.
    """
    step = max(1, MAX_VALUES // (frame.original[0] * frame.original[1]))
    highest, mask = frame.restore(logits[:step].float()).max(0)
    for first in range(step, len(logits), step):
        values, indices = frame.restore(logits[first : first + step].float()).max(0)
        mask = torch.where(values > highest, indices + first, mask)
        highest = torch.maximum(highest, values)
    return mask.to(torch.uint8)


class TorchvisionHead(SegmentationHead):
    """`classifier` on c5 and, in training, `aux_classifier` on c4; both under torchvision's names."""

    def __init__(self, name: str, classifier: nn.Module, aux_classifier: nn.Module | None, pooled_norm: bool) -> None:
        super().__init__(name, pooled_norm=pooled_norm)
        self.classifier = classifier
        self.aux_classifier = aux_classifier

    def maps(self, features: dict[str, Tensor], images: Tensor) -> Output:
        output = {"logits": self.classifier(features["c5"])}
        if self.training and self.aux_classifier is not None:
            output["aux_logits"] = self.aux_classifier(features["c4"])
        return output


def fcn(options: FcnOptions, context: HeadContext) -> TorchvisionHead:
    """Fully convolutional network (arXiv:1411.4038), as torchvision has it: two convolutions on c5."""
    classifier = FCNHead(context.channels["c5"], len(context.task.labels))
    head = TorchvisionHead("fcn", classifier, _aux_classifier("fcn", options, context), False)
    head.published = published("fcn", head, context)
    return head


def deeplabv3(options: DeepLabOptions, context: HeadContext) -> TorchvisionHead:
    """DeepLab v3 (arXiv:1706.05587): a pyramid of dilated convolutions and global pooling on c5."""
    classifier = DeepLabHead(context.channels["c5"], len(context.task.labels), options.atrous_rates)
    head = TorchvisionHead("deeplabv3", classifier, _aux_classifier("deeplabv3", options, context), True)
    head.published = published("deeplabv3", head, context)
    return head


def _aux_classifier(name: str, options: FcnOptions, context: HeadContext) -> FCNHead | None:
    if not options.aux:
        return None
    if "c4" not in context.channels:
        raise FtengineError(f"head {name}: aux needs the level c4, this backbone has {', '.join(context.channels)}")
    return FCNHead(context.channels["c4"], len(context.task.labels))
