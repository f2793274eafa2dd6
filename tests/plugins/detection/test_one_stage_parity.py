"""Losses, gradients and detections of torchvision's own RetinaNet and FCOS, with the same weights."""

from __future__ import annotations

import pytest
import torch
from detectors import built_on, copy_backbone, head_context, make_batch, photos, staged, stock_targets, targets
from torch import nn
from torchvision.models import detection

from ftengine_detection.fcos import fcos
from ftengine_detection.one_stage_losses import FcosLoss, RetinaNetLoss
from ftengine_detection.one_stage_options import FcosLossOptions, FcosOptions, RetinaNetLossOptions, RetinaNetOptions
from ftengine_detection.published import stock_name
from ftengine_detection.retinanet import retinanet

CASES = {
    "retinanet v1": (
        detection.retinanet_resnet50_fpn,
        lambda context: retinanet(RetinaNetOptions(), context),
        RetinaNetLoss(RetinaNetLossOptions(), None),
    ),
    "retinanet v2": (
        detection.retinanet_resnet50_fpn_v2,
        lambda context: retinanet(RetinaNetOptions(version="v2"), context),
        RetinaNetLoss(RetinaNetLossOptions(box="giou"), None),
    ),
    "fcos": (
        detection.fcos_resnet50_fpn,
        lambda context: fcos(FcosOptions(), context),
        FcosLoss(FcosLossOptions(), None),
    ),
}
TERMS = {"classification": "classification", "box": "bbox_regression", "centerness": "bbox_ctrness"}


def enliven(model: nn.Module) -> None:
    """Larger weights in the layers on the pyramid: with those of a new detector, all scores and boxes are alike."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.startswith("head.") and parameter.dim() == 4:
            parameter.data.normal_(0, 0.005 if "bbox_reg" in name else 0.025, generator=generator)
    nn.init.constant_(model.head.classification_head.cls_logits.bias, -1)
    if isinstance(model, detection.FCOS):  # its distances are cut off at 0
        nn.init.constant_(model.head.regression_head.bbox_reg.bias, 1)


class Pair:
    """Torchvision's model, and backbone and head with its weights."""

    def __init__(self, case, backbone):
        builder, make, self.loss = CASES[case]
        torch.manual_seed(0)
        self.stock = built_on(backbone, builder, num_classes=3, min_size=96, max_size=1333, _skip_resize=True)
        enliven(self.stock)
        self.backbone = staged(backbone, levels=("c3", "c4", "c5"))
        copy_backbone(self.backbone, self.stock)
        self.head = make(head_context(self.backbone.channels, self.backbone.strides))
        theirs = self.stock.state_dict()
        self.head.load_state_dict({name: theirs[stock_name(name)] for name in self.head.state_dict()})
        self.modules = (self.stock, self.backbone, self.head)

    def batch(self, given=None):
        """The padded and normalised batch that torchvision makes of the photos."""
        return make_batch(self.stock.transform(photos())[0].tensors, given)

    def terms(self):
        """Their losses and ours; neither draws anything at random."""
        for module in self.modules:
            module.train()
        batch = self.batch(targets())
        return self.stock(photos(), stock_targets(first_label=0)), self.loss(
            self.head(self.backbone(batch.images), batch), batch
        )


@pytest.fixture(
    scope="module",
    params=[
        ("retinanet v1", "resnet18"),
        ("fcos", "resnet18"),
        *(pytest.param((case, "resnet50"), marks=pytest.mark.slow) for case in CASES),
    ],
    ids=" ".join,
)
def pair(request):
    return Pair(*request.param)


def test_the_terms_and_their_gradients_are_torchvisions(pair):
    theirs, ours = pair.terms()
    assert [TERMS[name] for name in ours] == list(theirs)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[TERMS[name]], rtol=1e-5, atol=1e-5)
        assert value > 0.01
    sum(theirs.values()).backward()
    sum(ours.values()).backward()
    expected = {name: parameter.grad for name, parameter in pair.stock.named_parameters()}
    ours = {stock_name(name): parameter.grad for name, parameter in pair.head.named_parameters()}
    body = pair.backbone.published
    ours |= {f"backbone.body.{body[name]}": parameter.grad for name, parameter in pair.backbone.named_parameters()}
    assert ours.keys() == expected.keys()
    off = {name: float((ours[name] - grad).norm() / grad.norm()) for name, grad in expected.items()}
    assert max(off.values()) < 1e-5, sorted(off.items(), key=lambda item: -item[1])[:5]


@torch.no_grad()
def test_the_detections_are_torchvisions(pair):
    for module in pair.modules:
        module.eval()
    theirs = pair.stock(photos())
    batch = pair.batch()
    ours = pair.head.predict(pair.head(pair.backbone(batch.images), batch), batch)
    for mine, stock in zip(ours, theirs, strict=True):
        # A box beside the image is cut off to a line: torchvision keeps it.
        real = (stock["boxes"][:, 2:] > stock["boxes"][:, :2]).all(1)
        assert real.sum() > 10
        assert mine["labels"].tolist() == stock["labels"][real].tolist()
        assert len(set(mine["labels"].tolist())) > 1
        torch.testing.assert_close(mine["scores"], stock["scores"][real], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mine["boxes"], stock["boxes"][real], rtol=1e-5, atol=1e-5)
