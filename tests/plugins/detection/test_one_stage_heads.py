import pytest
import torch
from detectors import CLASSES, SIZES, head_context, make_batch, staged, targets
from pydantic import ValidationError
from torch import nn
from torchvision.ops import box_iou

from ftengine.protocols import Batch, Frame
from ftengine_detection.fcos import fcos
from ftengine_detection.one_stage_losses import FcosLoss, RetinaNetLoss
from ftengine_detection.one_stage_options import FcosLossOptions, FcosOptions, RetinaNetLossOptions, RetinaNetOptions
from ftengine_detection.retinanet import retinanet

CHANNELS = {"c3": 24, "c4": 40, "c5": 64}
STRIDES = {"c3": 8, "c4": 16, "c5": 32}
KINDS = ("retinanet", "fcos")


def make(kind, strides=STRIDES, channels=CHANNELS, **options):
    """A small head that predicts something."""
    torch.manual_seed(0)
    context = head_context(channels, strides)
    options = {"preset": "small", **options}
    head = fcos(FcosOptions(**options), context) if kind == "fcos" else retinanet(RetinaNetOptions(**options), context)
    for name, parameter in head.head.named_parameters():
        if parameter.dim() == 4:
            nn.init.normal_(parameter, std=0.01 if "bbox_reg" in name else 0.05)
    nn.init.constant_(head.head.classification_head.cls_logits.bias, -1)
    nn.init.constant_(head.head.regression_head.bbox_reg.bias, 1 if kind == "fcos" else 0)
    return head


def loss_of(kind):
    return FcosLoss(FcosLossOptions(), None) if kind == "fcos" else RetinaNetLoss(RetinaNetLossOptions(), None)


def features(size=(96, 128), images=3, strides=STRIDES, channels=CHANNELS):
    """What a backbone would give for images of noise."""
    generator = torch.Generator().manual_seed(5)
    return {
        level: torch.randn(images, width, *(-(-side // strides[level]) for side in size), generator=generator)
        for level, width in channels.items()
    }


def batch_of(given=None, size=(96, 128)):
    return make_batch(torch.zeros(3, 3, *size), given)


def run(kind, given=None, **options):
    head, batch = make(kind, **options), batch_of(given)
    return head, batch, head(features(), batch)


POSITIONS = [12 * 16, 6 * 8, 3 * 4, 2 * 2, 1]


@pytest.mark.parametrize(("kind", "each"), [("retinanet", 9), ("fcos", 1)])
def test_the_output_is_as_documented(kind, each):
    _, _, output = run(kind, targets())
    anchors = sum(POSITIONS) * each
    assert output.pop("level_sizes") == [count * each for count in POSITIONS]
    assert [len(labels) for labels in output.pop("labels")] == [3, 0, 1]
    assert [len(boxes) for boxes in output.pop("boxes")] == [3, 0, 1]
    shapes = {name: tuple(tensor.shape) for name, tensor in output.items()}
    extra = {"bbox_ctrness": (3, anchors, 1)} if kind == "fcos" else {}
    assert shapes == {
        "cls_logits": (3, anchors, len(CLASSES)),
        "bbox_regression": (3, anchors, 4),
        "anchors": (anchors, 4),
        "matched": (3, anchors),
        **extra,
    }
    assert output.pop("matched").dtype == torch.int64
    assert all(tensor.dtype == torch.float32 for tensor in output.values())


@pytest.mark.parametrize("kind", KINDS)
def test_unlabelled_images_have_no_match(kind):
    _, _, output = run(kind)
    assert not {"matched", "boxes", "labels"} & output.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_can_be_measured_in_evaluation(kind):
    head, batch = make(kind), batch_of(targets())
    assert head.loss_in_eval
    train = loss_of(kind)(head.train()(features(), batch), batch)
    assert loss_of(kind)(head.eval()(features(), batch), batch) == train


def test_anchors_match_by_overlap():
    _, _, output = run("retinanet", targets())
    matched = output["matched"]
    assert (matched[1] == -1).all()
    for image in (0, 2):
        overlap, best = box_iou(output["boxes"][image], output["anchors"]).max(0)
        assert (matched[image][overlap >= 0.5] == best[overlap >= 0.5]).all()
        assert (matched[image] == -2).sum() > 0
        assert overlap[matched[image] == -2].min() >= 0.4
        # Every object has an anchor, however little they overlap.
        assert set(matched[image].tolist()) >= set(range(len(output["boxes"][image])))
        assert overlap[matched[image] >= 0].min() >= 0.2


def test_positions_match_near_the_centre_of_objects_of_their_size():
    _, _, output = run("fcos", targets())
    matched = output["matched"]
    assert matched.min() == -1
    assert (matched[1] == -1).all()
    first = output["anchors"][matched[0] == 0]
    box = output["boxes"][0][0]
    centres = (first[:, :2] + first[:, 2:]) / 2
    assert len(first) > 3
    assert ((centres - (box[:2] + box[2:]) / 2).abs() < 12).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_crowd_is_not_learnt_from(kind):
    def terms(given):
        _, batch, output = run(kind, given)
        return loss_of(kind)(output, batch)

    given = targets()
    expected = terms(given)
    given["boxes"][2][1] = torch.tensor([1.0, 1.0, 30.0, 30.0])
    given["labels"][2][1] = 2
    assert terms(given) == expected
    given["crowd"][2][1] = False
    assert terms(given) != expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_objects_has_finite_losses(kind):
    head, batch, output = run(kind, targets(boxes=([], [], []), labels=([], [], []), crowd=([], [], [])))
    terms = loss_of(kind)(output, batch)
    assert terms.pop("classification") > 0.1
    assert all(term == 0 for term in terms.values())
    sum(loss_of(kind)(output, batch).values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_sorted_within_the_image_and_limited(kind):
    head, batch, output = run(kind, detections_per_img=7, score_thresh=0.3)
    for one, (height, width) in zip(head.predict(output, batch), SIZES, strict=True):
        assert one["boxes"].dtype == one["scores"].dtype == torch.float32
        assert one["labels"].dtype == torch.int64
        assert 0 < len(one["boxes"]) <= 7
        assert one["scores"].tolist() == sorted(one["scores"].tolist(), reverse=True)
        assert one["scores"].min() > 0.3
        assert set(one["labels"].tolist()) <= set(range(len(CLASSES)))
        assert one["boxes"].min() >= 0
        assert (one["boxes"][:, 2:] <= torch.tensor([width, height])).all()


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_in_the_originals_pixels(kind):
    head, batch, output = run(kind)
    plain = head.predict(output, batch)
    # As before, but the first image was made half as large, and the second has a border of 16 pixels above.
    frames = [
        Frame((192, 256), (96, 128), (0.0, 0.0, 96.0, 128.0)),
        Frame((80, 101), (96, 101), (16.0, 0.0, 80.0, 101.0)),
        batch.frames[2],
    ]
    moved = head.predict(output, Batch(batch.images, {}, batch.ids, frames))
    torch.testing.assert_close(moved[0]["boxes"], plain[0]["boxes"] * 2)
    inside = plain[1]["boxes"][:, 3] > 16
    expected = (plain[1]["boxes"][inside] - torch.tensor([0.0, 16, 0, 16])).clamp(min=0)
    torch.testing.assert_close(moved[1]["boxes"], expected)
    assert torch.equal(moved[1]["scores"], plain[1]["scores"][inside])


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_without_detections_is_predicted_so(kind):
    head, batch, output = run(kind, score_thresh=0.999)
    for one in head.predict(output, batch):
        assert {name: tuple(tensor.shape) for name, tensor in one.items()} == {
            "boxes": (0, 4),
            "scores": (0,),
            "labels": (0,),
        }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "convnext_tiny"])
def test_any_staged_backbone_will_do(kind, name):
    torch.manual_seed(0)
    backbone = staged(name, tuple(STRIDES))
    head = make(kind, backbone.strides, backbone.channels)
    images = torch.rand(3, 3, 96, 128)
    batch = make_batch(images, targets())
    sum(loss_of(kind)(head(backbone(images), batch), batch).values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in [*backbone.parameters(), *head.parameters()])


def test_the_squares_of_fcos_follow_the_strides():
    dilated = {**STRIDES, "c5": 16}
    head = make("fcos", dilated)
    assert head.anchor_generator.sizes == ((8,), (16,), (16,), (32,), (64,))
    output = head(features(strides=dilated), batch_of(targets()))
    assert (output["matched"] >= 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_anchors_lie_a_stride_apart_whatever_the_size(kind):
    size = (100, 140)
    output = make(kind)(features(size), batch_of(size=size))
    centres = ((output["anchors"][:, :2] + output["anchors"][:, 2:]) / 2).split(output["level_sizes"])
    for level, stride in zip(centres[:3], (8, 16, 32), strict=True):
        rows, columns = (sorted(set(level[:, axis].tolist())) for axis in (1, 0))
        assert rows == [stride * i for i in range(-(-100 // stride))]
        assert columns == [stride * i for i in range(-(-140 // stride))]


def test_p6_can_be_made_of_c5_of_the_same_width():
    channels = {**CHANNELS, "c5": 64}
    first, second = (make("retinanet", channels=channels, version=version) for version in ("v1", "v2"))
    assert (first.fpn.extra_blocks.use_P5, second.fpn.extra_blocks.use_P5) == (True, False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 3, 4])
def test_layers_are_as_deep_as_wanted(kind, depth):
    head = make(kind, num_convs=depth).head
    for part in (head.classification_head, head.regression_head):
        assert sum(isinstance(layer, nn.Conv2d) for layer in part.conv.modules()) == depth


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_keeps_boxes_and_losses_in_float32(kind):
    head, batch = make(kind), batch_of(targets())
    expected = head(features(), batch)
    exact = loss_of(kind)(expected, batch)
    with torch.autocast("cpu", torch.bfloat16):
        output = head(features(), batch)
        terms = loss_of(kind)(output, batch)
    assert torch.equal(output["anchors"], expected["anchors"])
    assert torch.equal(output["matched"], expected["matched"])
    assert not torch.equal(output["cls_logits"], expected["cls_logits"])
    assert all(output[name].dtype == torch.float32 for name in ("cls_logits", "bbox_regression"))
    for name, term in terms.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, exact[name], rtol=0.02, atol=1e-3)
    sum(terms.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())


@pytest.mark.parametrize("options", [RetinaNetOptions, FcosOptions])
def test_a_preset_gives_what_is_not_said(options):
    small = options(preset="small")
    assert small.fpn_channels == 64
    assert options(preset="small", fpn_channels=96).fpn_channels == 96
    assert options(**small.model_dump()) == small
    assert options(preset="default") == options()
    with pytest.raises(ValidationError, match="Input should be 'default' or 'small'"):
        options(preset="tiny")


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        (RetinaNetOptions, {"anchor_sizes": [[8]] * 4 + [[8, 16]]}, "the same number of sizes.*found 1, 1, 1, 1, 2"),
        (RetinaNetOptions, {"anchor_sizes": [[8]] * 4}, "at least 5 items"),
        (RetinaNetOptions, {"num_convs": 5}, "less than or equal to 4"),
        (RetinaNetOptions, {"bg_iou_thresh": 0.6}, r"bg_iou_thresh \(0.6\) is above fg_iou_thresh \(0.5\)"),
        (RetinaNetOptions, {"version": "v2", "fpn_channels": 100}, "found 100, the nearest is 96"),
        (FcosOptions, {"fpn_channels": 8}, "found 8, the nearest is 32"),
        (FcosOptions, {"score_thresh": 1}, "less than 1"),
    ],
)
def test_options_that_cannot_work_are_refused(options, given, message):
    with pytest.raises(ValidationError, match=message):
        options(**given)
