"""Detectors, batches and targets for the tests of detection's heads."""

import sys
from types import SimpleNamespace
from unittest import mock

import torch
from torch import Tensor, nn
from torchvision import models

from ftengine.protocols import Backbone, BackboneContext, Batch, Frame, HeadContext, LabelMap
from ftengine_torchvision import backbones
from ftengine_torchvision.plugin import register_backbones

LEVELS = ("c2", "c3", "c4", "c5")
CLASSES = ("disc", "square", "cross")
SIZES = ((96, 128), (96, 101), (96, 110))
BOXES = (
    [[3.0, 5.0, 40.0, 60.0], [50.0, 20.0, 120.0, 90.0], [10.0, 10.0, 22.0, 19.0]],
    [],
    [[30.5, 2.25, 80.0, 70.0], [0.0, 0.0, 90.0, 96.0]],
)
LABELS = ([0, 2, 1], [], [1, 0])
CROWD = ([False, False, False], [], [False, True])
"""The second image has no object, and the last box of the third is a crowd: nothing may be learnt from it."""


def head_context(channels, strides, backbone="", weights=None, classes=CLASSES):
    task = SimpleNamespace(labels=LabelMap(tuple(classes)))
    return HeadContext(channels, strides, task, backbone, weights)


def staged(name="resnet50", levels=LEVELS) -> Backbone:
    spec = next(spec for spec in register_backbones() if spec.name == name)
    return getattr(backbones, name)(spec.options(), BackboneContext(levels=levels))


def built_on(backbone: str, builder, **arguments) -> nn.Module:
    """Torchvision's detector without weights; those of `builder` are always on a ResNet-50."""
    with mock.patch.object(sys.modules[builder.__module__], "resnet50", getattr(models, backbone)):
        return builder(weights=None, weights_backbone=None, **arguments)


def photos(seed=0) -> list[Tensor]:
    """Three images of noise, float32 [3, H, W] in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, *size, generator=generator) for size in SIZES]


def frames(sizes=SIZES):
    return [Frame.whole(*size) for size in sizes]


def targets(device="cpu", boxes=BOXES, labels=LABELS, crowd=CROWD):
    areas = [[1.0] * len(part) for part in boxes]
    columns = {"boxes": boxes, "labels": labels, "crowd": crowd, "areas": areas}
    types = {"boxes": torch.float32, "labels": torch.int64, "crowd": torch.bool, "areas": torch.float64}
    made = {name: [torch.tensor(part, dtype=types[name]) for part in parts] for name, parts in columns.items()}
    made["boxes"] = [part.reshape(-1, 4) for part in made["boxes"]]
    return {name: [part.to(device) for part in parts] for name, parts in made.items()}


def make_batch(images: Tensor, given=None, sizes=SIZES) -> Batch:
    """A batch of padded images, float [B, 3, H, W]; without `given` one of unlabelled images."""
    return Batch(images, given or {}, [f"image-{i}" for i in range(len(images))], frames(sizes))


def stock_targets(first_label):
    """What torchvision's own detectors are trained with: no crowds, and labels from `first_label`."""
    made = targets()
    kept = [~crowd for crowd in made["crowd"]]
    return [
        {"boxes": boxes[keep], "labels": labels[keep] + first_label}
        for boxes, labels, keep in zip(made["boxes"], made["labels"], kept, strict=True)
    ]


def sharpen(model: nn.Module, parts=("cls_score", "bbox_pred", "cls_logits"), std=0.05, seed=1) -> None:
    """Larger weights in the predictors: with those a new detector has, all scores and boxes are nearly alike."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and any(part in name for part in parts):
            parameter.data.normal_(0, std, generator=generator)


def copy_backbone(backbone: Backbone, model: nn.Module, prefix="backbone.body.") -> None:
    """Give a staged backbone the tensors of torchvision's detector."""
    theirs = model.state_dict()
    names = backbone.published
    backbone.load_state_dict({own: theirs[prefix + names[own]] for own in backbone.state_dict()})
