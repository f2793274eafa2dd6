"""Losses, gradients and detections of torchvision's own Faster R-CNN, with the same weights and the same sampling."""

from __future__ import annotations

import pytest
import torch
from detectors import (
    CLASSES,
    built_on,
    copy_backbone,
    head_context,
    make_batch,
    photos,
    sharpen,
    staged,
    stock_targets,
    targets,
)
from torchvision.models import detection

from ftengine_detection.faster_rcnn import faster_rcnn
from ftengine_detection.faster_rcnn_loss import FasterRcnnLoss
from ftengine_detection.options import FasterRcnnLossOptions, FasterRcnnOptions

BUILDERS = {"v1": detection.fasterrcnn_resnet50_fpn, "v2": detection.fasterrcnn_resnet50_fpn_v2}
FEWER = {
    "rpn_pre_nms_top_n_train": 300,
    "rpn_pre_nms_top_n_test": 200,
    "rpn_post_nms_top_n_train": 150,
    "rpn_post_nms_top_n_test": 40,
    "rpn_batch_size_per_image": 40,
    "box_batch_size_per_image": 16,
}
TERMS = {
    "objectness": "loss_objectness",
    "rpn_box": "loss_rpn_box_reg",
    "classifier": "loss_classifier",
    "box": "loss_box_reg",
}


class Pair:
    """Torchvision's model, and backbone and head with its weights."""

    def __init__(self, version, backbone):
        torch.manual_seed(0)
        self.stock = built_on(
            backbone,
            BUILDERS[version],
            num_classes=len(CLASSES) + 1,
            min_size=96,
            max_size=1333,
            _skip_resize=True,
            **FEWER,
        )
        sharpen(self.stock)
        self.backbone = staged(backbone)
        copy_backbone(self.backbone, self.stock)
        context = head_context(self.backbone.channels, self.backbone.strides)
        self.head = faster_rcnn(FasterRcnnOptions(version=version, **FEWER), context)
        theirs = self.stock.state_dict()
        self.head.load_state_dict({name: theirs[stock_name(name)] for name in self.head.state_dict()})
        self.loss = FasterRcnnLoss(FasterRcnnLossOptions(), None)

    def images(self):
        """The padded and normalised batch that torchvision makes of the photos."""
        return self.stock.transform(photos())[0].tensors

    def train(self):
        for module in (self.stock, self.backbone, self.head):
            module.train()

    def eval(self):
        for module in (self.stock, self.backbone, self.head):
            module.eval()

    def terms(self, seed):
        """Their losses and ours, from the same state of the random generator."""
        torch.manual_seed(seed)
        theirs = self.stock(photos(), stock_targets(first_label=1))
        torch.manual_seed(seed)
        batch = make_batch(self.images(), targets())
        ours = self.loss(self.head(self.backbone(batch.images), batch), batch)
        return theirs, ours


def stock_name(name):
    return f"backbone.{name}" if name.startswith("fpn.") else name


@pytest.fixture(
    scope="module",
    params=[
        ("v1", "resnet18"),
        ("v2", "resnet18"),
        *(pytest.param((version, "resnet50"), marks=pytest.mark.slow) for version in ("v1", "v2")),
    ],
    ids=" ".join,
)
def pair(request):
    return Pair(*request.param)


def test_the_four_terms_and_their_gradients_are_torchvisions(pair):
    pair.train()
    theirs, ours = pair.terms(seed=3)
    assert set(ours) == set(TERMS)
    for name, stock in TERMS.items():
        torch.testing.assert_close(ours[name], theirs[stock], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        assert ours[name] > 1e-3
    sum(theirs.values()).backward()
    sum(ours.values()).backward()
    expected = {name: parameter.grad for name, parameter in pair.stock.named_parameters()}
    ours = {stock_name(name): parameter.grad for name, parameter in pair.head.named_parameters()}
    body = pair.backbone.published
    ours |= {f"backbone.body.{body[name]}": parameter.grad for name, parameter in pair.backbone.named_parameters()}
    assert ours.keys() == expected.keys()
    off = {name: float((ours[name] - grad).norm() / grad.norm()) for name, grad in expected.items()}
    assert max(off.values()) < 1e-5, sorted(off.items(), key=lambda item: -item[1])[:5]


def test_another_seed_samples_others(pair):
    pair.train()
    first, second = (pair.terms(seed)[1] for seed in (3, 4))
    assert all(first[name] != second[name] for name in ("objectness", "classifier"))


@torch.no_grad()
def test_the_detections_are_torchvisions(pair):
    pair.eval()
    theirs = pair.stock(photos())
    batch = make_batch(pair.images())
    ours = pair.head.predict(pair.head(pair.backbone(batch.images), batch), batch)
    assert all(len(found["boxes"]) > 10 for found in theirs)
    for mine, stock in zip(ours, theirs, strict=True):
        assert mine["labels"].tolist() == (stock["labels"] - 1).tolist()
        torch.testing.assert_close(mine["scores"], stock["scores"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mine["boxes"], stock["boxes"], rtol=1e-5, atol=1e-5)
