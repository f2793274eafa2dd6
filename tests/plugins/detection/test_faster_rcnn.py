import pytest
import torch
from detectors import (
    CLASSES,
    LEVELS,
    SIZES,
    frames,
    head_context,
    make_batch,
    sharpen,
    staged,
    targets,
)
from pydantic import ValidationError
from torchvision.ops import box_iou

from ftengine.protocols import Frame
from ftengine_detection.common import anchors, image_list, instances, predictions
from ftengine_detection.faster_rcnn import faster_rcnn
from ftengine_detection.faster_rcnn_loss import FasterRcnnLoss
from ftengine_detection.options import FasterRcnnLossOptions, FasterRcnnOptions

STRIDES = {"c1": 2, "c2": 4, "c3": 8, "c4": 16, "c5": 32}
CONVNEXT = {"c2": 96, "c3": 192, "c4": 384, "c5": 768}


def make(channels=CONVNEXT, strides=STRIDES, **options):
    torch.manual_seed(0)
    head = faster_rcnn(FasterRcnnOptions(preset="small", **options), head_context(channels, strides))
    sharpen(head)
    return head


def features(channels=CONVNEXT, size=(96, 128), images=3, strides=STRIDES):
    """What a backbone would give for images of noise."""
    generator = torch.Generator().manual_seed(5)
    shapes = {
        level: (images, width, size[0] // strides[level], size[1] // strides[level])
        for level, width in channels.items()
    }
    return {level: torch.randn(shape, generator=generator, requires_grad=True) for level, shape in shapes.items()}


def batch_of(given=None, size=(96, 128)):
    return make_batch(torch.zeros(3, 3, *size), given)


def train(head, given, levels=None, seed=0, **options):
    """The head's training output and the loss of it, and the batch."""
    batch = batch_of(given)
    torch.manual_seed(seed)
    output = head.train()(levels or features(), batch)
    return output, FasterRcnnLoss(FasterRcnnLossOptions(**options), None)(output, batch)


def test_the_output_is_as_documented():
    head = make()
    output, terms = train(head, targets())
    positives, chosen = len(output["rpn_deltas"]), len(output["roi_deltas"])
    assert {name: tuple(value.shape) for name, value in output.items()} == {
        "rpn_logits": (3 * 64,),
        "rpn_labels": (3 * 64,),
        "rpn_deltas": (positives, 4),
        "rpn_anchors": (positives, 4),
        "rpn_boxes": (positives, 4),
        "roi_logits": (len(output["roi_labels"]), len(CLASSES) + 1),
        "roi_labels": (len(output["roi_labels"]),),
        "roi_deltas": (chosen, 4),
        "roi_proposals": (chosen, 4),
        "roi_boxes": (chosen, 4),
    }
    assert {name for name, value in output.items() if value.dtype != torch.float32} == {"roi_labels"}
    assert output["rpn_labels"].sum() == positives > 0
    assert (output["roi_labels"] > 0).sum() == chosen > 0
    # Proposals count as objects from half an overlap on, with the object that they are to become.
    overlap = box_iou(output["roi_proposals"], output["roi_boxes"]).diagonal()
    assert overlap.min() >= 0.5
    assert not output["roi_proposals"].requires_grad
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_a_crowd_is_not_learnt_from():
    given = targets()
    _, terms = train(make(), given)
    given["boxes"][2][1] = torch.tensor([1.0, 1.0, 9.0, 9.0])
    given["labels"][2][1] = 2
    _, moved = train(make(), given)
    given["crowd"][2][1] = False
    _, single = train(make(), given)
    assert moved == terms
    assert single != terms


def test_a_box_without_area_in_float32_is_not_learnt_from():
    given = targets(boxes=([[50.0, 5.0, 50.0 + 1e-9, 60.0]], [], []), labels=([0], [], []), crowd=([False], [], []))
    assert [len(one["boxes"]) for one in instances(batch_of(given))] == [0, 0, 0]
    assert all(torch.isfinite(term) for term in train(make(), given)[1].values())


NOTHING = targets(boxes=([], [], []), labels=([], [], []), crowd=([], [], []))


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("thresh", [0.0, 0.999])
@pytest.mark.parametrize("form", ["smooth_l1", "giou", "ciou"])
def test_a_batch_without_objects_has_finite_losses(version, thresh, form):
    head = make(version=version, rpn_score_thresh=thresh)
    output, terms = train(head, NOTHING, box=form, rpn_box=form)
    assert len(output["roi_labels"]) == (0 if thresh else 3 * 64)
    assert terms["rpn_box"] == terms["box"] == 0
    assert terms["objectness"] > 0.1
    assert (terms["classifier"] > 0.1) == (thresh == 0)
    sum(terms.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())
    assert all(torch.isfinite(value).all() for value in head.state_dict().values())


@pytest.mark.parametrize("version", ["v1", "v2"])
@torch.no_grad()
def test_an_image_without_detections_is_predicted_so(version):
    head = make(version=version, rpn_score_thresh=0.999).eval()
    batch = batch_of()
    found = head.predict(head(features(), batch), batch)
    assert [tuple(one["boxes"].shape) for one in found] == [(0, 4)] * 3
    assert [len(one["scores"]) + len(one["labels"]) for one in found] == [0] * 3


@torch.no_grad()
def test_predictions_are_sorted_within_the_image_and_limited():
    head = make(box_detections_per_img=7, box_score_thresh=0.3).eval()
    batch = batch_of()
    found = head.predict(head(features(), batch), batch)
    for one, (height, width) in zip(found, SIZES, strict=True):
        assert one["boxes"].dtype == one["scores"].dtype == torch.float32
        assert one["labels"].dtype == torch.int64
        assert 0 < len(one["boxes"]) <= 7
        assert one["scores"].tolist() == sorted(one["scores"].tolist(), reverse=True)
        assert one["scores"].min() > 0.3
        assert one["labels"].min() >= 0
        assert one["labels"].max() < len(CLASSES)
        assert one["boxes"].min() >= 0
        assert (one["boxes"][:, 2:] <= torch.tensor([width, height])).all()


def test_predictions_go_back_to_the_original_and_leave_out_what_is_not_of_it():
    frame = Frame(original=(50, 100), size=(100, 100), content=(25.0, 0.0, 50.0, 100.0))
    scaled = Frame(original=(10, 20), size=(50, 100), content=(0.0, 0.0, 50.0, 100.0))
    boxes = [torch.tensor([[10.0, 30, 20, 70], [10, 0, 20, 20], [0, 20, 40, 30]]), torch.tensor([[5.0, 10, 50, 50]])]
    scores = [torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0.6])]
    labels = [torch.tensor([2, 1, 0]), torch.tensor([1])]
    first, second = predictions(boxes, scores, labels, [frame, scaled])
    assert first["boxes"].tolist() == [[10, 5, 20, 45], [0, 0, 40, 5]]
    assert first["labels"].tolist() == [2, 0]
    assert first["scores"].tolist() == pytest.approx([0.9, 0.7])
    assert second["boxes"].tolist() == [[1, 2, 10, 10]]


def test_a_batch_of_another_size_pools_from_the_same_scales():
    head = make().eval()
    small = make_batch(torch.zeros(1, 3, 64, 64), sizes=[(33, 40)])
    with torch.no_grad():
        head(features(size=(64, 64), images=1), small)
    assert head.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "regnet_y_400mf"])
def test_any_staged_backbone_will_do(name):
    torch.manual_seed(0)
    backbone = staged(name)
    head = make(backbone.channels, backbone.strides)
    images = torch.rand(3, 3, 96, 128)
    batch = make_batch(images, targets())
    terms = FasterRcnnLoss(FasterRcnnLossOptions(), None)(head(backbone(images), batch), batch)
    sum(terms.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in [*backbone.parameters(), *head.parameters()])


def test_levels_of_equal_stride_will_do():
    dilated = {**STRIDES, "c5": 16}
    head = make(strides=dilated)
    _, terms = train(head, targets(), features(strides=dilated))
    assert all(torch.isfinite(term) for term in terms.values())
    assert head.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 16]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_bfloat16_keeps_boxes_and_losses_in_float32(version):
    head = make(version=version)
    expected, exact = train(head, targets())
    with torch.autocast("cpu", torch.bfloat16):
        output, terms = train(head, targets())
    assert {name for name, value in output.items() if value.dtype != torch.float32} == {"roi_labels"}
    assert all(term.dtype == torch.float32 for term in terms.values())
    # Anchors and the sample of them do not depend on the features.
    assert torch.equal(output["rpn_anchors"], expected["rpn_anchors"])
    for name in ("objectness", "rpn_box"):
        torch.testing.assert_close(terms[name], exact[name], rtol=0.02, atol=1e-3)
    sum(terms.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        batch = batch_of()
        found = head.eval().predict(head(features(), batch), batch)
    assert all(len(one["boxes"]) > 0 and one["boxes"].dtype == torch.float32 for one in found)


def test_anchors_are_exact_far_from_the_corner_in_bfloat16():
    generator = make().rpn.anchor_generator
    levels = [torch.zeros(1, 1, side, side) for side in (264, 132, 66, 33, 17)]
    images = image_list(make_batch(torch.zeros(1, 3, 1056, 1056), sizes=[(1056, 1056)]))
    exact = anchors(generator, images, levels)[0]
    assert exact.dtype == torch.float32
    assert not torch.equal(exact, exact.bfloat16().float())
    assert torch.equal(anchors(generator, images, [level.bfloat16() for level in levels])[0], exact)


def test_only_torchs_own_generator_decides_the_sample():
    outputs = [train(make(), targets(), seed=seed)[0] for seed in (1, 1, 2)]
    for name, value in outputs[0].items():
        assert torch.equal(value, outputs[1][name]), name
    assert not torch.equal(outputs[0]["rpn_logits"], outputs[2]["rpn_logits"])


def test_unlabelled_images_need_no_targets():
    head = make().eval()
    with torch.no_grad():
        assert set(head(features(), batch_of())) == {"roi_logits", "roi_deltas", "roi_proposals"}
    assert not head.loss_in_eval


def test_a_preset_gives_way_to_what_is_said():
    small = FasterRcnnOptions(preset="small", fc_width=99)
    assert (small.fc_width, small.fpn_channels, small.anchor_sizes[0]) == (99, 64, [8])
    assert FasterRcnnOptions(**small.model_dump()) == small
    assert FasterRcnnOptions().fpn_channels == 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchor_sizes": [[8], [16], [32], [64], [128, 256]]}, "the same number of sizes.*found 1, 1, 1, 1, 2"),
        ({"anchor_sizes": [[8]]}, "at least 5 items"),
        ({"rpn_bg_iou_thresh": 0.8}, r"rpn_bg_iou_thresh \(0.8\) is above rpn_fg_iou_thresh \(0.7\)"),
        ({"box_bg_iou_thresh": 0.6}, r"box_bg_iou_thresh \(0.6\) is above"),
        ({"preset": "tiny"}, "'default' or 'small'"),
        ({"version": 3}, "'v1' or 'v2'"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        FasterRcnnOptions(**options)


def test_the_frames_of_the_tests_are_the_images():
    assert [frame.size for frame in frames()] == list(SIZES)
    assert set(LEVELS) == set(CONVNEXT)
