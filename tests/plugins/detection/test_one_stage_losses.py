import math

import pytest
import torch
from pydantic import ValidationError

from ftengine_detection.one_stage_losses import FcosLoss, RetinaNetLoss
from ftengine_detection.one_stage_options import FcosLossOptions, RetinaNetLossOptions

ANCHORS = torch.tensor([[0.0, 0, 16, 16], [8, 8, 24, 24], [16, 0, 32, 16], [0, 16, 16, 32], [16, 16, 32, 32]])
BOXES = [torch.tensor([[1.0, 2, 15, 17], [9, 6, 23, 25]]), torch.zeros(0, 4), torch.tensor([[17.0, 18, 31, 30]])]
LABELS = [torch.tensor([2, 0]), torch.zeros(0, dtype=torch.int64), torch.tensor([1])]
MATCHED = torch.tensor([[0, 1, -1, -2, 0], [-1] * 5, [-1, -2, -1, -1, 0]])
POSITIVES = [(0, 0, 0), (0, 1, 1), (0, 4, 0), (2, 4, 0)]
"""Image, anchor, object."""
INSIDE = torch.tensor([[0, 1, -1, -1, -1], [-1] * 5, [-1, -1, -1, -1, 0]])
"""The match that FCOS may have: the centres of these anchors are inside their objects."""
COUNTS = (3, 0, 1)


def make_output(matched=MATCHED):
    generator = torch.Generator().manual_seed(0)

    def noise(*shape, scale=1.0):
        return (torch.randn(shape, generator=generator) * scale).requires_grad_()

    return {
        "cls_logits": noise(3, 5, 3),
        "bbox_regression": (noise(3, 5, 4, scale=0.2).abs() + 0.2).detach().requires_grad_(),
        "bbox_ctrness": noise(3, 5, 1),
        "anchors": ANCHORS,
        "matched": matched,
        "boxes": BOXES,
        "labels": LABELS,
    }


def retinanet(output=None, **options):
    return RetinaNetLoss(RetinaNetLossOptions(**options), None)(output or make_output(), None)


def fcos(output=None, **options):
    return FcosLoss(FcosLossOptions(**options), None)(output or make_output(INSIDE), None)


def focal(logits, matched, image, alpha, gamma):
    """By the paper's formula, number by number: the sum over an image's anchors and classes."""
    total = 0.0
    for anchor, row in enumerate(logits[image].tolist()):
        place = int(matched[image, anchor])
        for label, logit in enumerate(row):
            true = place >= 0 and int(LABELS[image][place]) == label
            p = 1 / (1 + math.exp(-logit))
            p, weight = (p, alpha) if true else (1 - p, 1 - alpha)
            total += -weight * (1 - p) ** gamma * math.log(p) * (place != -2)
    return total


def area(box):
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def giou(first, second):
    both = [*map(max, first[:2], second[:2]), *map(min, first[2:], second[2:])]
    around = [*map(min, first[:2], second[:2]), *map(max, first[2:], second[2:])]
    union = area(first) + area(second) - area(both)
    return area(both) / union - (area(around) - union) / area(around)


def ciou(first, second):
    both = [*map(max, first[:2], second[:2]), *map(min, first[2:], second[2:])]
    around = [*map(min, first[:2], second[:2]), *map(max, first[2:], second[2:])]
    overlap = area(both) / (area(first) + area(second) - area(both))
    apart = sum(((first[i] + first[i + 2] - second[i] - second[i + 2]) / 2) ** 2 for i in (0, 1))
    diagonal = sum((around[i + 2] - around[i]) ** 2 for i in (0, 1))
    angles = [math.atan((box[2] - box[0]) / (box[3] - box[1])) for box in (first, second)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    return overlap - apart / diagonal - v * v / (1 - overlap + v)


def decoded(output, image, anchor):
    """RetinaNet's code of a box."""
    dx, dy, dw, dh = output["bbox_regression"][image, anchor].tolist()
    x1, y1, x2, y2 = ANCHORS[anchor].tolist()
    x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
    width, height = (x2 - x1) * math.exp(dw), (y2 - y1) * math.exp(dh)
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 0.0), (0.5, 1.5)])
def test_classification_is_the_focal_loss(alpha, gamma):
    output = make_output()
    each = [focal(output["cls_logits"], MATCHED, image, alpha, gamma) for image in range(3)]
    mean = sum(value / max(1, count) for value, count in zip(each, COUNTS, strict=True)) / 3
    assert retinanet(output, alpha=alpha, gamma=gamma)["classification"].item() == pytest.approx(mean, rel=1e-5)
    output = make_output(INSIDE)
    total = sum(focal(output["cls_logits"], INSIDE, image, alpha, gamma) for image in range(3))
    assert fcos(output, alpha=alpha, gamma=gamma)["classification"].item() == pytest.approx(total / 3, rel=1e-5)


def test_what_is_between_object_and_background_is_not_learnt_from():
    output = make_output()
    sum(retinanet(output).values()).backward()
    still = output["cls_logits"].grad.abs().sum(2) == 0
    assert torch.equal(still, MATCHED == -2)
    assert torch.equal(output["bbox_regression"].grad.abs().sum(2) > 0, MATCHED >= 0)


@pytest.mark.parametrize("form", ["l1", "giou", "ciou"])
def test_box_forms_of_retinanet(form):
    output = make_output()
    expected = 0.0
    for image, anchor, place in POSITIVES:
        box, wanted = decoded(output, image, anchor), BOXES[image][place].tolist()
        if form == "l1":
            x1, y1, x2, y2 = ANCHORS[anchor].tolist()
            size = x2 - x1, y2 - y1
            code = [((wanted[i] + wanted[i + 2]) / 2 - (x1 + x2, y1 + y2)[i] / 2) / size[i] for i in (0, 1)]
            code += [math.log((wanted[i + 2] - wanted[i]) / size[i]) for i in (0, 1)]
            got = output["bbox_regression"][image, anchor].tolist()
            term = sum(abs(a - b) for a, b in zip(got, code, strict=True))
        else:
            term = 1 - (giou if form == "giou" else ciou)(box, wanted)
        expected += term / COUNTS[image] / 3
    assert retinanet(output, box=form)["box"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("form", ["giou", "ciou"])
def test_box_forms_and_centerness_of_fcos(form):
    output = make_output(INSIDE)
    boxes = centerness = 0.0
    for image, anchor, place in POSITIVES[:2] + POSITIVES[3:]:
        x1, y1, x2, y2 = ANCHORS[anchor].tolist()
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        left, top, right, bottom = (16 * value for value in output["bbox_regression"][image, anchor].tolist())
        wanted = BOXES[image][place].tolist()
        boxes += 1 - (giou if form == "giou" else ciou)([x - left, y - top, x + right, y + bottom], wanted)
        sides = [x - wanted[0], wanted[2] - x], [y - wanted[1], wanted[3] - y]
        goal = math.sqrt(math.prod(min(pair) / max(pair) for pair in sides))
        p = 1 / (1 + math.exp(-output["bbox_ctrness"][image, anchor].item()))
        centerness -= goal * math.log(p) + (1 - goal) * math.log(1 - p)
    terms = fcos(output, box=form)
    assert terms["box"].item() == pytest.approx(boxes / 3, rel=1e-4)
    assert terms["centerness"].item() == pytest.approx(centerness / 3, rel=1e-4)


@pytest.mark.parametrize("form", ["giou", "ciou"])
def test_a_box_without_area_has_a_loss_and_a_gradient(form):
    """As FCOS predicts at first: its distances are cut off at 0."""
    output = make_output(INSIDE)
    output["bbox_regression"] = torch.zeros_like(output["bbox_regression"]).requires_grad_()
    term = fcos(output, box=form)["box"]
    term.backward()
    assert 1 <= term.item() < 3
    assert output["bbox_regression"].grad.isfinite().all()


@pytest.mark.parametrize("run", [retinanet, fcos])
def test_terms_are_weighted(run):
    output = make_output(INSIDE)
    plain = run(output)
    factors = dict(zip(plain, (2.0, 0.5, 0.25), strict=False))
    weighted = run(output, **{f"{name}_weight": factor for name, factor in factors.items()})
    assert {name: term.item() for name, term in weighted.items()} == pytest.approx(
        {name: plain[name].item() * factor for name, factor in factors.items()}
    )


@pytest.mark.parametrize("run", [retinanet, fcos])
def test_without_an_object_the_background_alone_is_learnt(run):
    output = make_output(torch.full_like(MATCHED, -1))
    terms = run(output)
    assert terms["classification"] > 0
    assert all(term == 0 for name, term in terms.items() if name != "classification")
    sum(terms.values()).backward()
    assert (output["cls_logits"].grad != 0).all()
    assert (output["bbox_regression"].grad == 0).all()


@pytest.mark.parametrize("options", [RetinaNetLossOptions, FcosLossOptions])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alpha": 1.5}, "less than or equal to 1"),
        ({"gamma": -1}, "greater than or equal to 0"),
        ({"box": "iou"}, "Input should be .*'giou' or 'ciou'"),
        ({"box_weight": -1}, "greater than or equal to 0"),
    ],
)
def test_options_that_cannot_work_are_refused(options, given, message):
    with pytest.raises(ValidationError, match=message):
        options(**given)
