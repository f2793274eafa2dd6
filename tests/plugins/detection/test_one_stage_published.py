"""Torchvision's published RetinaNet and FCOS: every tensor of the file has a place here."""

import re

import pytest
import torch
from detectors import CLASSES, head_context, make_batch, photos, staged
from torch import nn
from torchvision.models import detection

from ftengine.errors import WeightsError
from ftengine.weights import load_published
from ftengine_detection.fcos import fcos
from ftengine_detection.one_stage_options import FcosOptions, RetinaNetOptions
from ftengine_detection.retinanet import retinanet

BUILDERS = {
    "v1": (detection.retinanet_resnet50_fpn, detection.RetinaNet_ResNet50_FPN_Weights),
    "v2": (detection.retinanet_resnet50_fpn_v2, detection.RetinaNet_ResNet50_FPN_V2_Weights),
    "fcos": (detection.fcos_resnet50_fpn, detection.FCOS_ResNet50_FPN_Weights),
}
PREDICTOR = {f"head.classification_head.cls_logits.{kind}" for kind in ("weight", "bias")}


def make(case, backbone="resnet50", classes=CLASSES, **options):
    body = staged("resnet50", ("c3", "c4", "c5"))
    context = head_context(body.channels, body.strides, backbone, "coco", classes)
    if case == "fcos":
        return body, fcos(FcosOptions(**options), context)
    return body, retinanet(RetinaNetOptions(version=case, **options), context)


def as_old(case, file):
    """A file from before torchvision 0.13: no block around the convolutions of the pyramid, nor of RetinaNet's head."""

    def old(name):
        name = re.sub(r"(_blocks\.\d)\.0\.", r"\1.", name)
        if case == "fcos":
            return name
        return re.sub(r"(_head\.conv)\.(\d)\.0\.", lambda found: f"{found[1]}.{2 * int(found[2])}.", name)

    return {old(name): tensor for name, tensor in file.items() if "num_batches" not in name}


@pytest.fixture(scope="module", params=BUILDERS)
def parts(request):
    with torch.device("meta"):  # names and shapes are all that is looked at
        stock = BUILDERS[request.param][0](weights=None, weights_backbone=None)
        return request.param, stock, *make(request.param)


def test_every_tensor_of_the_file_has_one_place(parts):
    _, stock, body, head = parts
    published, theirs, own = head.published, stock.state_dict(), head.state_dict()
    assert published.names.keys() == own.keys()
    assert len(set(published.names.values())) == len(own)
    inner = {name.removeprefix(published.backbone) for name in theirs if name.startswith(published.backbone)}
    assert inner == set(body.published.values())
    assert {name for name in theirs if not name.startswith(published.backbone)} == set(published.names.values())
    assert set(published.replaced) == PREDICTOR
    for name, tensor in own.items():
        same = theirs[published.names[name]].shape == tensor.shape
        assert same == (name not in PREDICTOR), name


def test_where_the_file_is_and_what_its_layers_were_trained_with(parts):
    case, _, _, head = parts
    assert head.published.url == BUILDERS[case][1].COCO_V1.url
    assert head.published.norm_eps == (0.0 if case == "v1" else None)


def test_names_of_older_files_are_understood_as_torchvision_does(parts):
    case, stock, _, head = parts
    theirs = stock.state_dict()
    assert head.adapt(theirs).keys() == theirs.keys()
    if case == "v2":
        pytest.skip("the file of v2 is not older")
    old = as_old(case, theirs)
    new = {name: tensor for name, tensor in theirs.items() if "num_batches" not in name}
    assert old.keys() != new.keys()
    adapted = head.adapt(old)
    assert adapted.keys() == new.keys()
    assert all(adapted[name] is new[name] for name in new)
    assert not stock.load_state_dict(as_old(case, theirs), strict=False, assign=True).unexpected_keys


def trained(case):
    """Weights as a trained detector's: what is normalised has a scale of its own, and every layer says something."""
    torch.manual_seed(0)
    stock = BUILDERS[case][0](weights=None, weights_backbone=None)
    for name, parameter in stock.head.named_parameters():
        if parameter.dim() == 4:
            nn.init.normal_(parameter, std=0.005 if "bbox_reg" in name else 0.025)
    nn.init.constant_(stock.head.regression_head.bbox_reg.bias, 1 if case == "fcos" else 0)
    nn.init.constant_(stock.head.classification_head.cls_logits.bias, -1)
    for module in stock.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 1e-4, 2e-4)
            module.weight.data = 0.8 * module.running_var.sqrt()
    return stock.state_dict()


@torch.no_grad()
@pytest.mark.parametrize("case", ["v1", *(pytest.param(case, marks=pytest.mark.slow) for case in ("v2", "fcos"))])
def test_a_file_in_the_download_cache_gives_torchvisions_detector(case, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    weights = BUILDERS[case][1].COCO_V1
    file = trained(case)
    (tmp_path / "checkpoints").mkdir()
    stored = file if case == "v2" else as_old(case, file)
    torch.save(stored, tmp_path / "checkpoints" / weights.url.rsplit("/", 1)[1])
    stock = BUILDERS[case][0](weights=weights, min_size=96, detections_per_img=50).eval()

    body, head = make(case, classes=[f"class {i}" for i in range(91)], detections_per_img=50)
    new = {name: head.state_dict()[name].clone() for name in PREDICTOR}
    load_published(body, head, "coco")
    assert all(torch.equal(head.state_dict()[name], tensor) for name, tensor in new.items())
    head.load_state_dict({name: file[name] for name in PREDICTOR}, strict=False)

    batch = make_batch(stock.transform(photos())[0].tensors)
    found = head.eval().predict(head(body.eval()(batch.images), batch), batch)
    for mine, theirs in zip(found, stock(photos()), strict=True):
        real = (theirs["boxes"][:, 2:] > theirs["boxes"][:, :2]).all(1)
        assert real.sum() > 5
        assert mine["labels"].tolist() == theirs["labels"][real].tolist()
        torch.testing.assert_close(mine["scores"], theirs["scores"][real], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mine["boxes"], theirs["boxes"][real], rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("case", ["v1", "fcos"])
def test_other_backbones_have_no_published_detector(case):
    with pytest.raises(WeightsError, match=r"published an? \w+ for the backbone resnet50, not for 'resnet18'"):
        make(case, backbone="resnet18")


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        ("v1", {"fpn_channels": 128}, r"fpn_channels 256; found 128 \(preset: default\)"),
        ("v2", {"preset": "small"}, r"fpn_channels 256; found 64 \(preset: small\)"),
        ("v1", {"anchor_aspect_ratios": [1.0]}, "9 anchors a place; found 3"),
        ("v2", {"num_convs": 3}, "num_convs 4; found 3"),
        ("fcos", {"num_convs": 2}, "num_convs 4; found 2"),
    ],
)
def test_options_that_change_the_published_layers_are_refused(case, options, message):
    with pytest.raises(WeightsError, match=message):
        make(case, **options)


@pytest.mark.usefixtures("without_values")
def test_without_weights_nothing_is_published():
    body = staged("resnet50", ("c3", "c4", "c5"))
    context = head_context(body.channels, body.strides, "resnet50")
    assert retinanet(RetinaNetOptions(), context).published is None
    assert fcos(FcosOptions(), context).published is None
