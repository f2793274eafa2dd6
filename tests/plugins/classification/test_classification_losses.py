from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.utils.class_weight import compute_class_weight
from torchvision.ops import sigmoid_focal_loss

from ftengine.errors import FtengineError
from ftengine.protocols import Batch, Frame, LabelMap, LossContext
from ftengine_classification.losses import BinaryCrossEntropy, CrossEntropy, Focal
from ftengine_classification.options import BinaryCrossEntropyOptions, CrossEntropyOptions, FocalOptions

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -3.0], [-1.0, 4.0, 1.0], [0.0, 0.0, 0.0]])
LABEL = torch.tensor([0, 1, 2, 2])
LABELS = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
COUNTS = (10, 20, 70)


def context(multi_label=False, counts=COUNTS, samples=100):
    names = LabelMap(("ants", "bees", "cats"))
    task = SimpleNamespace(labels=names, multi_label=multi_label, counts=np.array(counts), samples=samples)
    return LossContext(task=task)


def batch(**targets):
    return Batch(images=torch.zeros(4, 3, 2, 2), targets=targets, ids=list("abcd"), frames=[Frame.whole(2, 2)] * 4)


def value(loss, logits=LOGITS):
    (term,) = loss({"logits": logits}, batch(label=LABEL, labels=LABELS)).values()
    return term


def log_softmax(logits):
    z = logits.double().numpy()
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def bce(logits, targets):
    z, y = logits.double().numpy(), np.asarray(targets, dtype=np.float64)
    return np.log1p(np.exp(z)) - y * z


def test_cross_entropy_is_the_mean_negative_log_probability():
    loss = CrossEntropy(CrossEntropyOptions(), context())
    terms = loss({"logits": LOGITS}, batch(label=LABEL))
    assert list(terms) == ["cross_entropy"]
    expected = -log_softmax(LOGITS)[np.arange(4), LABEL.numpy()].mean()
    assert terms["cross_entropy"].item() == pytest.approx(expected, rel=1e-6)


def test_label_smoothing_mixes_in_the_uniform_distribution():
    loss = CrossEntropy(CrossEntropyOptions(label_smoothing=0.3), context())
    logp = log_softmax(LOGITS)
    target = np.eye(3)[LABEL.numpy()] * 0.7 + 0.1
    assert value(loss).item() == pytest.approx(-(target * logp).sum(1).mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1.0, 2.0, 3.0], [1, 2, 3]),
        ({"cats": 4.0}, [1, 1, 4]),
        ("balanced", compute_class_weight("balanced", classes=np.arange(3), y=np.repeat(np.arange(3), COUNTS))),
    ],
    ids=["list", "mapping", "balanced"],
)
def test_class_weights_make_a_weighted_mean(given, expected):
    loss = CrossEntropy(CrossEntropyOptions(class_weights=given), context())
    np.testing.assert_allclose(loss.weight.numpy(), expected, rtol=1e-6)
    weight = np.asarray(expected)[LABEL.numpy()]
    terms = -log_softmax(LOGITS)[np.arange(4), LABEL.numpy()]
    assert value(loss).item() == pytest.approx((terms * weight).sum() / weight.sum(), rel=1e-6)
    assert loss.state_dict() == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CrossEntropy(CrossEntropyOptions(class_weights={"cat": 2.0}), context()),
            "class_weights: unknown class 'cat'; did you mean 'cats'?",
        ),
        (
            lambda: Focal(FocalOptions(class_weights=[1.0, 2.0]), context()),
            "class_weights: 2 weights for 3 classes; expected one for each of: ants, bees, cats",
        ),
        (
            lambda: BinaryCrossEntropy(BinaryCrossEntropyOptions(pos_weight={"dogs": 1.0}), context(True)),
            "pos_weight: unknown class 'dogs'",
        ),
        (
            lambda: BinaryCrossEntropy(
                BinaryCrossEntropyOptions(pos_weight="balanced"), context(True, counts=(5, 100, 5))
            ),
            "every training sample has 'bees'",
        ),
        (lambda: Focal(FocalOptions(alpha=0.25), context()), "use class_weights for a single-label one"),
    ],
)
def test_weights_that_do_not_fit(make, message):
    with pytest.raises(FtengineError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize("weights", [[1.0, 0.0, 1.0], [1.0, float("inf"), 1.0], "balance"])
def test_weights_that_are_no_weights(weights):
    with pytest.raises(ValidationError):
        CrossEntropyOptions(class_weights=weights)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_softmax_focal(gamma):
    loss = Focal(FocalOptions(gamma=gamma), context())
    logp = log_softmax(LOGITS)[np.arange(4), LABEL.numpy()]
    expected = (-((1 - np.exp(logp)) ** gamma) * logp).mean()
    assert value(loss).item() == pytest.approx(expected, rel=1e-5)


def test_focal_without_focus_is_cross_entropy():
    weights = {"bees": 3.0, "cats": 0.5}
    focal = Focal(FocalOptions(gamma=0, class_weights=weights), context())
    plain = CrossEntropy(CrossEntropyOptions(class_weights=weights), context())
    torch.testing.assert_close(value(focal), value(plain))


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_sigmoid_focal_is_that_of_torchvision(alpha):
    logits = LOGITS.clone().requires_grad_()
    theirs = sigmoid_focal_loss(logits, LABELS, alpha=-1 if alpha is None else alpha, gamma=2, reduction="mean")
    (their_gradient,) = torch.autograd.grad(theirs, logits)
    ours = value(Focal(FocalOptions(alpha=alpha), context(multi_label=True)), logits)
    (our_gradient,) = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(our_gradient, their_gradient)


def test_sigmoid_focal_weighs_classes():
    loss = Focal(FocalOptions(gamma=0, class_weights=[1.0, 2.0, 5.0]), context(multi_label=True))
    weight = np.array([1, 2, 5])
    expected = (bce(LOGITS, LABELS) * weight).sum() / (4 * weight.sum())
    assert value(loss).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_focal_gradient_is_finite_where_the_probability_rounds_to_one(multi_label):
    logits = torch.tensor([[200.0, -200.0, -200.0]] * 4, requires_grad=True)
    loss = Focal(FocalOptions(gamma=0.5), context(multi_label))
    targets = {"label": torch.zeros(4, dtype=torch.int64), "labels": torch.tensor([[1.0, 0, 0]] * 4)}
    loss({"logits": logits}, batch(**targets))["focal"].backward()
    assert logits.grad.isfinite().all()
    logits.grad = None
    loss({"logits": logits}, batch(label=torch.eye(3)[[0] * 4], labels=targets["labels"]))["focal"].backward()
    assert logits.grad.isfinite().all()


def test_binary_cross_entropy():
    loss = BinaryCrossEntropy(BinaryCrossEntropyOptions(), context(True))
    assert list(loss({"logits": LOGITS}, batch(labels=LABELS))) == ["binary_cross_entropy"]
    assert value(loss).item() == pytest.approx(bce(LOGITS, LABELS).mean(), rel=1e-6)


def test_binary_label_smoothing_draws_towards_one_half():
    loss = BinaryCrossEntropy(BinaryCrossEntropyOptions(label_smoothing=0.2), context(True))
    assert value(loss).item() == pytest.approx(bce(LOGITS, LABELS * 0.8 + 0.1).mean(), rel=1e-6)


def test_balanced_positives_weigh_negatives_over_positives():
    loss = BinaryCrossEntropy(BinaryCrossEntropyOptions(pos_weight="balanced"), context(True))
    weight = np.array([90 / 10, 80 / 20, 30 / 70])
    z, y = LOGITS.double().numpy(), LABELS.double().numpy()
    expected = (weight * y * np.log1p(np.exp(-z)) + (1 - y) * np.log1p(np.exp(z))).mean()
    assert value(loss).item() == pytest.approx(expected, rel=1e-6)


SINGLE = {
    "cross_entropy": lambda **options: CrossEntropy(CrossEntropyOptions(**options), context()),
    "focal": lambda **options: Focal(FocalOptions(**options), context()),
}
CHOICES = [
    ("cross_entropy", {}),
    ("cross_entropy", {"label_smoothing": 0.2}),
    ("cross_entropy", {"class_weights": "balanced"}),
    ("cross_entropy", {"class_weights": [1.0, 2.0, 5.0], "label_smoothing": 0.2}),
    ("focal", {}),
    ("focal", {"gamma": 0.5, "class_weights": [1.0, 2.0, 5.0]}),
]


def of_label(loss, label, logits=LOGITS):
    (term,) = loss({"logits": logits}, batch(label=label)).values()
    return term


@pytest.mark.parametrize(("name", "options"), CHOICES)
def test_one_hot_labels_are_class_ids(name, options):
    loss = SINGLE[name](**options)
    logits = LOGITS.clone().requires_grad_()
    results = []
    for label in (LABEL, torch.eye(3)[LABEL]):
        term = of_label(loss, label, logits)
        (gradient,) = torch.autograd.grad(term, logits)
        results.append((term.detach(), gradient))
    torch.testing.assert_close(results[1], results[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), CHOICES)
def test_a_mixed_label_is_the_mean_of_both_weighed_by_class_and_share(name, options):
    """What it is by the definition: sum over both labels of share * class weight * loss, over share * class weight."""
    loss = SINGLE[name](**options)
    other, share = LABEL.roll(1), 0.3
    weight = torch.ones(3) if loss.weight is None else loss.weight
    top, bottom = 0.0, 0.0
    for part, label in ((share, LABEL), (1 - share, other)):
        own = weight[label].sum()
        top += part * own * of_label(loss, label)  # the loss of ids is a mean that is weighted by class
        bottom += part * own
    mixed = share * torch.eye(3)[LABEL] + (1 - share) * torch.eye(3)[other]
    torch.testing.assert_close(of_label(loss, mixed), top / bottom, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        BinaryCrossEntropy(BinaryCrossEntropyOptions(), context(True)),
        BinaryCrossEntropy(BinaryCrossEntropyOptions(pos_weight=[1.0, 2.0, 5.0], label_smoothing=0.2), context(True)),
        Focal(FocalOptions(), context(True)),
        Focal(FocalOptions(alpha=0.25, gamma=0.5, class_weights=[1.0, 2.0, 5.0]), context(True)),
    ],
    ids=["plain", "weighted", "focal", "weighted_focal"],
)
def test_mixed_labels_of_an_image_are_the_mean_of_both(loss):
    def term(labels):
        (value,) = loss({"logits": LOGITS}, batch(labels=labels)).values()
        return value

    other, share = LABELS.roll(1, 0), 0.3
    expected = share * term(LABELS) + (1 - share) * term(other)
    torch.testing.assert_close(term(share * LABELS + (1 - share) * other), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), CHOICES)
def test_soft_labels_under_autocast_are_those_of_single_precision(name, options):
    loss = SINGLE[name](**options)
    soft = 0.3 * torch.eye(3)[LABEL] + 0.7 * torch.eye(3)[LABEL.roll(1)]
    with torch.autocast("cpu", torch.bfloat16):
        inside = of_label(loss, soft)
    torch.testing.assert_close(inside, of_label(loss, soft), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropy(CrossEntropyOptions(class_weights="balanced", label_smoothing=0.1), context()),
        Focal(FocalOptions(class_weights="balanced"), context()),
        Focal(FocalOptions(alpha=0.3), context(True)),
        BinaryCrossEntropy(BinaryCrossEntropyOptions(pos_weight="balanced"), context(True)),
    ],
    ids=["cross_entropy", "focal", "sigmoid_focal", "binary_cross_entropy"],
)
def test_bf16_logits_are_read_in_float32(loss):
    logits = (LOGITS * 30).bfloat16().requires_grad_()
    term = value(loss, logits)
    assert term.dtype == torch.float32
    assert term.isfinite()
    torch.testing.assert_close(term, value(loss, logits.detach().float()))
    term.backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0
