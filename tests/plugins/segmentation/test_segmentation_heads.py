"""What all segmentation heads share, and torchvision's heads against torchvision's own models."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torchvision import models

from ftengine.errors import FtengineError, WeightsError
from ftengine.protocols import Backbone, BackboneContext, Batch, Frame, HeadContext, LabelMap, Window
from ftengine.weights import load_published
from ftengine_segmentation import heads
from ftengine_segmentation.head_options import DeepLabOptions, FcnOptions
from ftengine_segmentation.heads import SegmentationHead
from ftengine_torchvision import backbones
from ftengine_torchvision.plugin import ResidualOptions

CLASSES = ("sky", "road", "car", "tree", "sign")
OPTIONS = {"fcn": FcnOptions, "deeplabv3": DeepLabOptions}


def batch_of(images: torch.Tensor, frames: list[Frame] | None = None) -> Batch:
    count, _, height, width = images.shape
    frames = frames or [Frame.whole(height, width)] * count
    return Batch(images, {}, [str(i) for i in range(count)], frames)


def context_of(backbone: Backbone, name: str = "resnet50", weights: str | None = None) -> HeadContext:
    task = SimpleNamespace(labels=LabelMap(CLASSES, ignore=255))
    return HeadContext(backbone.channels, backbone.strides, task, name, weights)


def backbone_of(name: str = "resnet50", output_stride: int = 8) -> Backbone:
    return getattr(backbones, name)(ResidualOptions(output_stride=output_stride), BackboneContext(levels=("c5",)))


def head_of(name: str, context: HeadContext, **options) -> SegmentationHead:
    return getattr(heads, name)(OPTIONS[name](**options), context)


class PixelByPixel(SegmentationHead):
    """Each pixel's logits are a function of that pixel alone."""

    def __init__(self) -> None:
        super().__init__("pixels")
        self.layer = nn.Conv2d(3, len(CLASSES), 1)

    def maps(self, features, images):
        return {"logits": self.layer(images)}


# --- against torchvision --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["fcn", "deeplabv3"])
def pair(request):
    """Torchvision's model, and ours with its weights."""
    torch.manual_seed(0)
    build = getattr(models.segmentation, f"{request.param}_resnet50")
    stock = build(weights=None, weights_backbone=None, num_classes=len(CLASSES), aux_loss=True)
    backbone = backbone_of()
    head = head_of(request.param, context_of(backbone), aux=True)
    state = stock.state_dict()
    head.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("backbone.")})
    backbone.load_state_dict({name: state[f"backbone.{theirs}"] for name, theirs in backbone.published.items()})
    return stock, backbone, head


def test_outputs_and_gradients_are_those_of_torchvisions_model(pair) -> None:
    stock, backbone, head = pair
    generator = torch.Generator().manual_seed(1)
    images, other = torch.randn(2, 2, 3, 64, 96, generator=generator)
    for module in pair:
        module.train()
    torch.manual_seed(2)  # for dropout
    expected = stock(images)
    (expected["out"].square().mean() + 0.5 * expected["aux"].square().mean()).backward()
    torch.manual_seed(2)
    output = head(backbone(images), batch_of(images))
    assert set(output) == {"logits", "aux_logits"}
    (output["logits"].square().mean() + 0.5 * output["aux_logits"].square().mean()).backward()
    torch.testing.assert_close(output["logits"], expected["out"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output["aux_logits"], expected["aux"], rtol=1e-5, atol=1e-5)
    first = next(backbone.parameters()).grad
    assert first.abs().sum() > 0
    torch.testing.assert_close(first, stock.backbone.conv1.weight.grad, rtol=1e-5, atol=1e-5)
    # The statistics that this step left behind are the same, and the auxiliary classifier is for training only.
    for module in pair:
        module.eval()
    with torch.inference_mode():
        expected = stock(other)
        output = head(backbone(other), batch_of(other))
    assert set(output) == {"logits"}
    assert output["logits"].shape == (2, len(CLASSES), 64, 96)
    torch.testing.assert_close(output["logits"], expected["out"], rtol=1e-5, atol=1e-5)


def test_without_aux_there_is_no_auxiliary_classifier() -> None:
    backbone = backbone_of("resnet18")
    head = head_of("fcn", context_of(backbone))
    images = torch.randn(2, 3, 64, 64)
    assert set(head(backbone(images), batch_of(images))) == {"logits"}
    assert not [name for name in head.state_dict() if name.startswith("aux")]


def test_aux_needs_c4() -> None:
    context = HeadContext({"c5": 8}, {"c5": 32}, SimpleNamespace(labels=LabelMap(CLASSES)), "short")
    with pytest.raises(FtengineError, match=r"head fcn: aux needs the level c4, this backbone has c5"):
        head_of("fcn", context, aux=True)


def test_atrous_rates_reach_the_pyramid() -> None:
    head = head_of("deeplabv3", context_of(backbone_of("resnet18")), atrous_rates=[2, 5])
    rates = {layer.dilation for layer in head.modules() if isinstance(layer, nn.Conv2d)}
    assert rates == {(1, 1), (2, 2), (5, 5)}
    with pytest.raises(ValidationError, match="atrous_rates"):
        DeepLabOptions(atrous_rates=[0])


# --- published weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aux", [True, False])
@pytest.mark.parametrize("backbone_name", ["resnet50", pytest.param("resnet101", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["fcn", "deeplabv3"])
def test_every_published_tensor_has_its_place(name: str, backbone_name: str, aux: bool) -> None:
    with torch.device("meta"):
        build = getattr(models.segmentation, f"{name}_{backbone_name}")
        file = build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).state_dict()
        backbone = backbone_of(backbone_name, output_stride=16)
        head = head_of(name, context_of(backbone, backbone_name, "coco"), aux=aux)
    published = head.published
    own = head.state_dict()
    assert set(published.names) == set(own)
    prefixes = ("classifier.", "aux_classifier.") if aux else ("classifier.",)
    assert set(published.replaced) == {f"{prefix}4.{kind}" for prefix in prefixes for kind in ("weight", "bias")}
    for mine, theirs in published.names.items():
        assert (file[theirs].shape == own[mine].shape) == (mine not in published.replaced), mine
    inner = {published.backbone + theirs: mine for mine, theirs in backbone.published.items()}
    for theirs, mine in inner.items():
        assert file[theirs].shape == backbone.state_dict()[mine].shape
    rest = set(file) - set(inner) - set(published.names.values())
    assert published.discarded == (() if aux else ("aux_classifier.*",))
    assert {key.split(".")[0] for key in rest} == (set() if aux else {"aux_classifier"})
    assert f"{name}_{backbone_name}_coco" in published.url


def test_a_file_of_the_published_layout_is_loaded(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    stock = models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    backbone = backbone_of(output_stride=16)
    head = head_of("fcn", context_of(backbone, "resnet50", "coco"))
    file = tmp_path / "hub" / "checkpoints" / head.published.url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    torch.save(stock.state_dict(), file)
    predictor = head.classifier[4].weight.clone()
    coverage = load_published(backbone, head, "coco")
    assert [*coverage.missing, *coverage.unexpected, *coverage.mismatched] == []
    torch.testing.assert_close(head.classifier[0].weight, stock.classifier[0].weight, rtol=0, atol=0)
    torch.testing.assert_close(next(backbone.parameters()), stock.backbone.conv1.weight, rtol=0, atol=0)
    assert torch.equal(head.classifier[4].weight, predictor)


def test_unpublished_backbones_are_named() -> None:
    backbone = backbone_of("resnet18")
    with pytest.raises(WeightsError, match=r"fcn has the weights coco with .*resnet101, resnet50, not with 'resnet18'"):
        head_of("fcn", context_of(backbone, "resnet18", "coco"))
    assert head_of("fcn", context_of(backbone, "resnet18")).published is None


# --- what all heads share -------------------------------------------------------------------------------------------


def test_one_image_is_too_few_for_pooling_with_batchnorm() -> None:
    backbone = backbone_of("resnet18")
    head = head_of("deeplabv3", context_of(backbone))
    images = torch.randn(1, 3, 64, 64)
    with pytest.raises(FtengineError, match=r"head deeplabv3: .*at least 2 images at a time, got 1"):
        head(backbone(images), batch_of(images))
    head.eval()
    assert head(backbone(images), batch_of(images))["logits"].shape == (1, len(CLASSES), 64, 64)


def test_logits_are_float32_under_autocast() -> None:
    torch.manual_seed(0)
    backbone = backbone_of("resnet18")
    head = head_of("fcn", context_of(backbone), aux=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        output = head(backbone(images), batch_of(images))
    assert {name: tensor.dtype for name, tensor in output.items()} == dict.fromkeys(
        ("logits", "aux_logits"), torch.float32
    )
    output["logits"].sum().backward()


def test_masks_have_the_size_of_the_original() -> None:
    head = PixelByPixel().eval()
    logits = torch.full((2, len(CLASSES), 32, 32), -1.0)
    logits[0, 4] = 5  # the padding would win if it were looked at
    logits[0, 4, 2:12, 3:19] = -1
    logits[0, 1, 2:12, 3:11] = 1
    logits[0, 3, 2:12, 11:19] = 1
    logits[1, 2] = 0
    frames = [Frame((20, 32), (14, 22), (2.0, 3.0, 10.0, 16.0)), Frame.whole(32, 32)]
    first, second = head.predict({"logits": logits}, batch_of(torch.zeros(2, 3, 32, 32), frames))
    assert first["mask"].shape == (20, 32)
    assert first["mask"].dtype == torch.uint8
    assert first["mask"][:, :16].eq(1).all()
    assert first["mask"][:, 16:].eq(3).all()
    assert second["mask"].eq(2).all()


def test_masks_do_not_depend_on_how_many_classes_are_restored_at_a_time(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    # Few values, so that classes tie: the first of them is the one.
    logits = torch.randint(0, 3, (7, 12, 16), generator=generator).float()
    frame = Frame((12, 16), (12, 16), (0.0, 0.0, 12.0, 16.0))
    whole = heads.classes(logits, frame)
    assert torch.equal(whole, logits.argmax(0).to(torch.uint8))
    for at_a_time in (1, 2, 3):
        monkeypatch.setattr(heads, "MAX_VALUES", at_a_time * 12 * 16)
        assert torch.equal(heads.classes(logits, frame), whole)


def test_bf16_logits_are_restored_in_float32() -> None:
    logits = torch.tensor([[[1.0, 0.0]], [[0.0, 1.003]]], dtype=torch.bfloat16)
    frame = Frame((1, 200), (1, 2), (0.0, 0.0, 1.0, 2.0))
    expected = frame.restore(logits.float()).argmax(0).to(torch.uint8)
    assert torch.equal(heads.classes(logits, frame), expected)


def test_windows_give_what_the_whole_image_gives() -> None:
    torch.manual_seed(0)
    head = PixelByPixel().eval()
    images = torch.randn(2, 3, 40, 56)
    windows = [Window(top, left, 32, 32) for top in (0, 8) for left in (0, 11, 24)]
    with torch.inference_mode():
        whole = head({}, batch_of(images))
        parts = [head({}, batch_of(images[:, :, w.top : w.top + 32, w.left : w.left + 32])) for w in windows]
        merged = head.merge(parts, windows, (40, 56))
    assert set(merged) == {"logits"}
    torch.testing.assert_close(merged["logits"], whole["logits"], rtol=1e-5, atol=1e-6)


def test_overlapping_windows_are_averaged() -> None:
    parts = [{"logits": torch.full((1, 2, 4, 6), value)} for value in (1.0, 4.0)]
    merged = PixelByPixel().merge(parts, [Window(0, 0, 4, 6), Window(0, 4, 4, 6)], (4, 10))["logits"]
    assert merged[0, 1, 2].tolist() == [1.0] * 4 + [2.5] * 2 + [4.0] * 4
