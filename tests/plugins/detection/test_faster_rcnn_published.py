"""Torchvision's published detectors: every tensor of the file has a place here."""

import re

import pytest
import torch
from detectors import CLASSES, head_context, make_batch, photos, sharpen, staged
from torchvision.models import detection

from ftengine.errors import WeightsError
from ftengine.weights import load_published
from ftengine_detection.faster_rcnn import faster_rcnn
from ftengine_detection.options import FasterRcnnOptions

BUILDERS = {
    "v1": (detection.fasterrcnn_resnet50_fpn, detection.FasterRCNN_ResNet50_FPN_Weights),
    "v2": (detection.fasterrcnn_resnet50_fpn_v2, detection.FasterRCNN_ResNet50_FPN_V2_Weights),
}
PARTS = ("cls_score.weight", "cls_score.bias", "bbox_pred.weight", "bbox_pred.bias")
PREDICTOR = {
    f"roi_heads.box_predictor.{part}.{kind}" for part in ("cls_score", "bbox_pred") for kind in ("weight", "bias")
}


def make(version="v1", backbone="resnet50", classes=CLASSES, **options):
    body = staged("resnet50")
    context = head_context(body.channels, body.strides, backbone, "coco", classes)
    return body, faster_rcnn(FasterRcnnOptions(version=version, **options), context)


FEWER = {"rpn_post_nms_top_n_test": 50, "box_score_thresh": 0.02}


def old_names(names):
    """What a file from before torchvision 0.13 calls each tensor: there is no block around the convolutions."""
    return {re.sub(r"(blocks\.\d)\.0\.", r"\1.", name).replace("head.conv.0.0.", "head.conv."): name for name in names}


@pytest.fixture(scope="module", params=["v1", "v2"])
def parts(request):
    version = request.param
    with torch.device("meta"):  # names and shapes are all that is looked at
        stock = BUILDERS[version][0](weights=None, weights_backbone=None)
        return version, stock, *make(version)


def test_every_tensor_of_the_file_has_one_place(parts):
    _, stock, body, head = parts
    published, theirs, own = head.published, stock.state_dict(), head.state_dict()
    assert published.names.keys() == own.keys()
    assert len(set(published.names.values())) == len(own)
    inner = {name.removeprefix(published.backbone) for name in theirs if name.startswith(published.backbone)}
    assert inner == set(body.published.values())
    outer = {name for name in theirs if not name.startswith(published.backbone)}
    assert outer == set(published.names.values())
    assert set(published.replaced) == PREDICTOR
    for name, tensor in own.items():
        same = theirs[published.names[name]].shape == tensor.shape
        assert same == (name not in PREDICTOR), name


def test_where_the_file_is_and_what_its_layers_were_trained_with(parts):
    version, _, _, head = parts
    assert head.published.url == BUILDERS[version][1].COCO_V1.url
    assert head.published.norm_eps == (0.0 if version == "v1" else None)


def test_names_of_older_files_are_understood(parts):
    version, stock, _, head = parts
    theirs = stock.state_dict()
    if version == "v2":
        assert head.adapt(theirs).keys() == theirs.keys()
        return
    old = {
        re.sub(r"(blocks\.\d|rpn\.head\.conv\.0)\.0\.", r"\1.", name).replace("conv.0.", "conv."): name
        for name in theirs
    }
    assert {"backbone.fpn.inner_blocks.3.weight", "rpn.head.conv.bias"} <= old.keys()
    adapted = head.adapt({name: theirs[new] for name, new in old.items()})
    assert adapted.keys() == theirs.keys()
    assert all(adapted[name] is theirs[name] for name in theirs)


@pytest.mark.usefixtures("without_values")
def test_the_older_names_are_those_that_torchvision_itself_accepts():
    stock = BUILDERS["v1"][0](weights=None, weights_backbone=None)
    theirs = stock.state_dict()
    stock.load_state_dict({name: theirs[new] for name, new in old_names(theirs).items()})


def trained(version):
    """Weights as a trained detector's: what is normalised has a scale of its own, and every layer says something."""
    torch.manual_seed(0)
    stock = BUILDERS[version][0](weights=None, weights_backbone=None)
    sharpen(stock)
    for module in stock.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(1e-4, 2e-4)
            module.weight.data = 0.9 * module.running_var.sqrt()
    return stock.state_dict()


@torch.no_grad()
@pytest.mark.parametrize("version", ["v1", pytest.param("v2", marks=pytest.mark.slow)])
def test_a_file_in_the_download_cache_gives_torchvisions_detector(version, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    weights = BUILDERS[version][1].COCO_V1
    file = trained(version)
    if version == "v1":
        # Frozen layers do not count their batches, and older files have names of their own.
        file = {name: file[new] for name, new in old_names(file).items() if "num_batches" not in name}
    (tmp_path / "checkpoints").mkdir()
    torch.save(file, tmp_path / "checkpoints" / weights.url.rsplit("/", 1)[1])
    stock = BUILDERS[version][0](weights=weights, min_size=96, **FEWER).eval()

    body, head = make(version, classes=[f"class {i}" for i in range(90)], **FEWER)
    new = {name: head.state_dict()[name].clone() for name in PREDICTOR}
    load_published(body, head, "coco")
    assert all(torch.equal(head.state_dict()[name], tensor) for name, tensor in new.items())
    head.load_state_dict({name: file[name] for name in PREDICTOR}, strict=False)

    batch = make_batch(stock.transform(photos())[0].tensors)
    found = head.eval().predict(head(body.eval()(batch.images), batch), batch)
    for mine, theirs in zip(found, stock(photos()), strict=True):
        assert len(mine["labels"]) > 5
        assert mine["labels"].tolist() == (theirs["labels"] - 1).tolist()
        torch.testing.assert_close(mine["scores"], theirs["scores"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine["boxes"], theirs["boxes"], rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_large", ""])
def test_other_backbones_have_no_published_detector(backbone):
    with pytest.raises(WeightsError, match=f"for the backbone resnet50, not for '{backbone}'"):
        make(backbone=backbone)


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fc_width": 512}, r"fc_width 1024; found 512 \(preset: default\)"),
        ({"preset": "small"}, r"fpn_channels 256; found 64 \(preset: small\)"),
        ({"anchor_aspect_ratios": [1.0]}, "3 anchors a place; found 1"),
    ],
)
def test_options_that_change_the_published_layers_are_refused(options, message):
    with pytest.raises(WeightsError, match=message):
        make(**options)


@pytest.mark.usefixtures("without_values")
def test_without_weights_nothing_is_published():
    body = staged("resnet50")
    assert faster_rcnn(FasterRcnnOptions(), head_context(body.channels, body.strides, "resnet50")).published is None
