import pytest
import torch
from torch.nn import functional
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

from ftengine_detection.faster_rcnn_loss import FasterRcnnLoss
from ftengine_detection.options import FasterRcnnLossOptions

CODERS = {"rpn": BoxCoder((1.0, 1.0, 1.0, 1.0)), "roi": BoxCoder((10.0, 10.0, 5.0, 5.0))}
IOU = {"giou": generalized_box_iou_loss, "ciou": complete_box_iou_loss}
STARTS = {"rpn": "rpn_anchors", "roi": "roi_proposals"}


def boxes(count, generator):
    corner = 80 * torch.rand(count, 2, generator=generator)
    return torch.cat([corner, corner + 5 + 40 * torch.rand(count, 2, generator=generator)], 1)


def make_output(positive=6, anchors=20, chosen=4, proposals=15, classes=3):
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(proposals, dtype=torch.int64)
    labels[:chosen] = torch.randint(1, classes + 1, (chosen,), generator=generator)
    return {
        "rpn_logits": torch.randn(anchors, generator=generator).requires_grad_(),
        "rpn_labels": (torch.arange(anchors) < positive).float(),
        "rpn_deltas": (0.3 * torch.randn(positive, 4, generator=generator)).requires_grad_(),
        "rpn_anchors": boxes(positive, generator),
        "rpn_boxes": boxes(positive, generator),
        "roi_logits": torch.randn(proposals, classes + 1, generator=generator).requires_grad_(),
        "roi_labels": labels,
        "roi_deltas": (0.3 * torch.randn(chosen, 4, generator=generator)).requires_grad_(),
        "roi_proposals": boxes(chosen, generator),
        "roi_boxes": boxes(chosen, generator),
    }


def terms(output, **options):
    return FasterRcnnLoss(FasterRcnnLossOptions(**options), None)(output, None)


@pytest.mark.parametrize(("term", "stage", "count"), [("rpn_box", "rpn", 20), ("box", "roi", 15)])
@pytest.mark.parametrize("form", ["giou", "ciou"])
def test_the_overlap_forms_are_of_the_decoded_boxes(term, stage, count, form):
    output = make_output()
    decoded = CODERS[stage].decode_single(output[f"{stage}_deltas"], output[STARTS[stage]])
    expected = IOU[form](decoded, output[f"{stage}_boxes"]).sum() / count
    torch.testing.assert_close(terms(output, **{term: form})[term], expected)


@pytest.mark.parametrize(("term", "stage", "count"), [("rpn_box", "rpn", 20), ("box", "roi", 15)])
def test_smooth_l1_is_of_the_encoded_offsets(term, stage, count):
    output = make_output()
    offsets = CODERS[stage].encode_single(output[f"{stage}_boxes"], output[STARTS[stage]])
    expected = functional.smooth_l1_loss(output[f"{stage}_deltas"], offsets, beta=1 / 9, reduction="sum") / count
    torch.testing.assert_close(terms(output)[term], expected)


@pytest.mark.parametrize("form", ["smooth_l1", "giou", "ciou"])
def test_boxes_that_are_right_cost_nothing_and_a_step_downhill_brings_them_nearer(form):
    output = make_output()
    for stage in CODERS:
        offsets = CODERS[stage].encode_single(output[f"{stage}_boxes"], output[STARTS[stage]])
        perfect = {**output, f"{stage}_deltas": offsets}
        term = {"rpn": "rpn_box", "roi": "box"}[stage]
        assert terms(perfect, **{term: form})[term].item() == pytest.approx(0, abs=1e-5)
        start = terms(output, **{term: form})[term]
        (gradient,) = torch.autograd.grad(start, output[f"{stage}_deltas"])
        nearer = {**output, f"{stage}_deltas": output[f"{stage}_deltas"] - 1e-2 * gradient}
        assert terms(nearer, **{term: form})[term] < start


def test_each_form_is_of_its_own_term():
    output = make_output()
    plain, changed = terms(output), terms(output, box="giou")
    assert {name for name in plain if plain[name] != changed[name]} == {"box"}
    changed = terms(output, rpn_box="giou")
    assert {name for name in plain if plain[name] != changed[name]} == {"rpn_box"}


def test_focal_weighs_each_proposal_by_what_is_missing():
    output = make_output()
    chance = output["roi_logits"].softmax(1)[torch.arange(15), output["roi_labels"]]
    expected = (-chance.log() * (1 - chance) ** 1.5).mean()
    torch.testing.assert_close(terms(output, classifier="focal", focal_gamma=1.5)["classifier"], expected)
    plain = functional.cross_entropy(output["roi_logits"], output["roi_labels"])
    torch.testing.assert_close(terms(output, classifier="focal", focal_gamma=0)["classifier"], plain)
    torch.testing.assert_close(terms(output)["classifier"], plain)


def test_focal_is_finite_where_all_is_right():
    output = make_output()
    output["roi_logits"] = (100 * functional.one_hot(output["roi_labels"], 4).float()).requires_grad_()
    term = terms(output, classifier="focal", focal_gamma=0.5)["classifier"]
    term.backward()
    assert term < 1e-6
    assert torch.isfinite(output["roi_logits"].grad).all()


@pytest.mark.parametrize("name", ["objectness", "rpn_box", "classifier", "box"])
def test_every_term_has_a_weight(name):
    output = make_output()
    plain, weighted = terms(output), terms(output, **{f"{name}_weight": 2.5})
    for term in plain:
        torch.testing.assert_close(weighted[term], plain[term] * (2.5 if term == name else 1))


@pytest.mark.parametrize("form", ["smooth_l1", "giou", "ciou"])
@pytest.mark.parametrize("classifier", ["cross_entropy", "focal"])
def test_nothing_sampled_costs_nothing(form, classifier):
    output = make_output(0, 0, 0, 0)
    found = terms(output, box=form, rpn_box=form, classifier=classifier)
    assert {name: term.item() for name, term in found.items()} == dict.fromkeys(
        ("objectness", "rpn_box", "classifier", "box"), 0.0
    )
    sum(found.values()).backward()
