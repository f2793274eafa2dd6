"""Each loss beside its formula, written out in NumPy, one class and one pixel at a time."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from ftengine.errors import FtengineError
from ftengine.protocols import Batch, LabelMap, LossContext
from ftengine_segmentation import losses
from ftengine_segmentation.options import (
    CrossEntropyOptions,
    FocalOptions,
    OverlapOptions,
    RegionOptions,
    TverskyOptions,
)

NAMES = ("sky", "road", "car", "pole")
PIXELS = np.array([50, 30, 15, 5])
WEIGHTS = [0.5, 2.0, 3.0, 1.0]

MAKERS = {
    "cross_entropy": (losses.CrossEntropy, CrossEntropyOptions),
    "focal": (losses.Focal, FocalOptions),
    "dice": (losses.dice, OverlapOptions),
    "jaccard": (losses.jaccard, OverlapOptions),
    "tversky": (losses.tversky, TverskyOptions),
    "lovasz": (losses.Lovasz, RegionOptions),
}


def make(name, pixels=PIXELS, **options):
    factory, model = MAKERS[name]
    context = LossContext(task=SimpleNamespace(labels=LabelMap(NAMES, ignore=255), pixels=pixels))
    return factory(model(**options), context)


def case(seed=0, size=(2, 4, 5, 6), dtype=torch.float64, absent=(1,), ignored=0.2):
    """Random logits and a mask in which the classes `absent` do not occur and about a fifth is ignored."""
    generator = np.random.default_rng(seed)
    logits = torch.tensor(generator.normal(0, 2, size), dtype=dtype)
    present = [index for index in range(size[1]) if index not in absent]
    mask = generator.choice(present, (size[0], *size[2:])).astype(np.uint8)
    mask[generator.random(mask.shape) < ignored] = 255
    return logits, torch.from_numpy(mask)


def terms(loss, logits, mask, **more):
    batch = Batch(images=torch.zeros(1), targets={"mask": mask}, ids=[], frames=[])
    return loss({"logits": logits, **more}, batch)


def value(loss, logits, mask):
    (term,) = terms(loss, logits, mask).values()
    return term


# --- formulas ----------------------------------------------------------------------------------------------------


def probabilities(logits):
    """Softmax, float64 [B, H, W, C]."""
    z = logits.double().numpy().transpose(0, 2, 3, 1)
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def known_pixels(logits, mask):
    """(probabilities [C], class) of each pixel that is not ignored."""
    p = probabilities(logits)
    return [(p[i], int(mask[i])) for i in np.ndindex(*mask.shape) if mask[i] != 255]


def naive_cross_entropy(logits, mask, smoothing=0.0, weights=(1, 1, 1, 1)):
    total = below = 0.0
    for p, label in known_pixels(logits, mask):
        total += (1 - smoothing) * weights[label] * -math.log(p[label])
        total += smoothing / len(p) * sum(w * -math.log(q) for w, q in zip(weights, p, strict=True))
        below += weights[label]
    return total / below


def naive_focal(logits, mask, gamma, weights=(1, 1, 1, 1)):
    total = below = 0.0
    for p, label in known_pixels(logits, mask):
        total += weights[label] * (1 - p[label]) ** gamma * -math.log(p[label])
        below += weights[label]
    return total / below


def over_classes(logits, mask, of_class, weights=(1, 1, 1, 1), per_image=False):
    """The weighted mean of `of_class` over the classes that occur, in each image or in the batch."""
    if per_image:
        means = [
            over_classes(logits[i : i + 1], mask[i : i + 1], of_class, weights)
            for i in range(len(mask))
            if (mask[i] != 255).any()
        ]
        return sum(means) / len(means)
    pixels = known_pixels(logits, mask)
    present = sorted({label for _, label in pixels})
    values = {c: of_class([(p[c], label == c) for p, label in pixels]) for c in present}
    return sum(weights[c] * values[c] for c in present) / sum(weights[c] for c in present)


def tversky_of_class(alpha, beta, gamma=1.0, smooth=0.0):
    def loss(pixels):
        tp = sum(p for p, true in pixels if true)
        fp = sum(p for p, true in pixels if not true)
        fn = sum(1 - p for p, true in pixels if true)
        return (1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)) ** gamma

    return loss


def lovasz_of_class(pixels):
    """The paper's algorithm: 1 - IoU grows as pixels become wrong, from the largest error on."""
    truth = sum(true for _, true in pixels)
    errors = sorted(((1 - p if true else p, true) for p, true in pixels), reverse=True)
    total = before = 0.0
    intersection, union = truth, truth
    for error, true in errors:
        intersection, union = (intersection - 1, union) if true else (intersection, union + 1)
        jaccard = 1 - intersection / union
        total += error * (jaccard - before)
        before = jaccard
    return total


def close(result, expected):
    assert result.item() == pytest.approx(expected, rel=1e-10)


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy(smoothing, weights):
    logits, mask = case()
    result = value(make("cross_entropy", label_smoothing=smoothing, class_weights=weights), logits, mask)
    close(result, naive_cross_entropy(logits, mask, smoothing, weights or [1] * 4))
    torchs = F.cross_entropy(
        logits,
        mask.long(),
        weight=None if weights is None else torch.tensor(weights, dtype=torch.float64),
        ignore_index=255,
        label_smoothing=smoothing,
    )
    close(result, torchs.item())


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal(gamma, weights):
    logits, mask = case()
    result = value(make("focal", gamma=gamma, class_weights=weights), logits, mask)
    close(result, naive_focal(logits, mask, gamma, weights or [1] * 4))


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize(
    ("name", "options", "of_class"),
    [
        ("dice", {}, tversky_of_class(0.5, 0.5)),
        ("dice", {"smooth": 1.0}, tversky_of_class(0.5, 0.5, smooth=1.0)),
        ("jaccard", {}, tversky_of_class(1, 1)),
        ("jaccard", {"smooth": 0.5}, tversky_of_class(1, 1, smooth=0.5)),
        ("tversky", {"alpha": 0.3, "beta": 0.7}, tversky_of_class(0.3, 0.7)),
        ("tversky", {"alpha": 0.3, "beta": 0.7, "gamma": 0.75}, tversky_of_class(0.3, 0.7, 0.75)),
        ("tversky", {"alpha": 0.0, "beta": 1.0, "gamma": 2.0, "smooth": 2.0}, tversky_of_class(0, 1, 2, 2)),
        ("lovasz", {}, lovasz_of_class),
    ],
)
def test_region_losses(name, options, of_class, weights, per_image):
    logits, mask = case()
    mask[0][mask[0] == 2] = 0  # a class that only the second image has
    result = value(make(name, class_weights=weights, per_image=per_image, **options), logits, mask)
    close(result, over_classes(logits, mask, of_class, weights or [1] * 4, per_image))


def test_dice_is_the_familiar_formula():
    logits, mask = case()
    p = probabilities(logits)[mask.numpy() != 255]
    label = mask.numpy()[mask.numpy() != 255]
    each = [1 - 2 * p[label == c, c].sum() / (p[:, c].sum() + (label == c).sum()) for c in (0, 2, 3)]
    close(value(make("dice"), logits, mask), np.mean(each))


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky", "lovasz"])
def test_hard_answers_have_the_loss_of_their_overlap(name):
    """Where the softmax is 0 or 1, soft overlaps are real ones: here of 3 pixels with 6 and 4 in all."""
    truth = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 255]]], dtype=torch.uint8)
    taken = torch.tensor([[[0, 0, 0, 1, 1, 1, 0, 0]]])
    logits = F.one_hot(taken, 4).movedim(-1, 1) * 1000.0
    jaccard = ((1 - 3 / 5) + (1 - 2 / 4)) / 2
    dice = ((1 - 2 * 3 / 8) + (1 - 2 * 2 / 6)) / 2
    expected = {"dice": dice, "tversky": dice, "jaccard": jaccard, "lovasz": jaccard}[name]
    assert value(make(name), logits, truth).item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("name", MAKERS)
def test_a_perfect_answer_has_no_loss(name):
    _, mask = case()
    logits = F.one_hot(mask.long().clamp(max=3), 4).movedim(-1, 1) * 1000.0
    assert value(make(name), logits, mask).item() == 0


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky", "lovasz"])
def test_an_absent_class_does_not_count_as_a_perfect_one(name):
    """Three classes that occur and one that does not: the same loss as if there were only three."""
    logits, mask = case(absent=(3,))
    logits[:, 3] = -torch.inf
    context = LossContext(task=SimpleNamespace(labels=LabelMap(NAMES[:3]), pixels=None))
    three = MAKERS[name][0](MAKERS[name][1](), context)
    close(value(make(name), logits, mask), value(three, logits[:, :3], mask).item())


# --- gradients, ignored pixels, types ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cross_entropy", {"label_smoothing": 0.1, "class_weights": WEIGHTS}),
        ("focal", {"gamma": 2.0, "class_weights": WEIGHTS}),
        ("focal", {"gamma": 0.5}),
        ("dice", {"class_weights": WEIGHTS}),
        ("dice", {"per_image": True, "smooth": 1.0}),
        ("jaccard", {}),
        ("tversky", {"alpha": 0.3, "beta": 0.7, "gamma": 0.75}),
        ("lovasz", {}),
        ("lovasz", {"per_image": True, "class_weights": WEIGHTS}),
    ],
)
def test_gradients(name, options):
    logits, mask = case(size=(2, 4, 3, 4))
    loss = make(name, **options)
    assert torch.autograd.gradcheck(lambda x: value(loss, x, mask), logits.requires_grad_())


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_predicted_for_ignored_pixels_changes_nothing(name):
    logits, mask = case()
    loss = make(name, class_weights=WEIGHTS)
    logits.requires_grad_()
    term = value(loss, logits, mask)
    term.backward()
    ignored = (mask == 255)[:, None].expand_as(logits)
    assert ignored.any()
    assert (logits.grad[ignored] == 0).all()
    assert (logits.grad[~ignored] != 0).all()
    other = torch.where(ignored, logits.flip(1) * 3, logits)
    close(value(loss, other, mask), term.item())


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_a_batch_of_ignored_pixels_has_no_loss_and_no_gradient(name, per_image):
    options = {"gamma": 0.5} if name in ("focal", "tversky") else {}
    if name in ("dice", "jaccard", "tversky", "lovasz"):
        options["per_image"] = per_image
    logits, mask = case(dtype=torch.float32, ignored=1.0)
    logits.requires_grad_()
    term = value(make(name, class_weights=WEIGHTS, **options), logits, mask)
    assert term.shape == ()
    assert term.item() == 0
    term.backward()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", MAKERS)
def test_a_batch_of_classes_without_weight_has_no_loss(name):
    logits, mask = case(absent=(1, 2, 3))
    options = {"label_smoothing": 0.1} if name == "cross_entropy" else {}
    logits.requires_grad_()
    term = value(make(name, class_weights={"sky": 0.0}, **options), logits, mask)
    term.backward()
    assert term.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky", "lovasz"])
def test_an_image_of_ignored_pixels_is_not_in_the_mean_over_images(name):
    logits, mask = case()
    mask[1] = 255
    loss = make(name, per_image=True)
    close(value(loss, logits, mask), value(loss, logits[:1], mask[:1]).item())


@pytest.mark.parametrize("name", MAKERS)
def test_large_logits_give_finite_gradients(name):
    options = {"gamma": 0.5} if name in ("focal", "tversky") else {}
    logits, mask = case(dtype=torch.float32)
    logits = (logits * 1e4).requires_grad_()
    term = value(make(name, **options), logits, mask)
    term.backward()
    assert term.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_computed_in_float32_under_autocast(name):
    logits, mask = case(size=(2, 4, 40, 50))
    half = logits.bfloat16()
    loss = make(name, class_weights=WEIGHTS)
    with torch.autocast("cpu", torch.bfloat16):
        result = value(loss, half, mask)
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(value(loss, half.double(), mask).item(), rel=2e-6)


def test_lovasz_keeps_its_digits_when_there_are_many_pixels():
    """In float32 the differences of 1 - IoU, as in the paper, would be off by a percent here."""
    generator = torch.Generator().manual_seed(0)
    errors = torch.rand(1, 400_000, generator=generator)
    truth = torch.rand(1, 400_000, generator=generator) < 0.3
    slopes = losses.lovasz_slopes(errors, truth, torch.zeros_like(truth))
    order = errors.argsort(1, descending=True)
    true = truth.gather(1, order).double()
    jaccard = 1 - (true.sum() - true.cumsum(1)) / (true.sum() + (1 - true).cumsum(1))
    torch.testing.assert_close(slopes.gather(1, order).double().cumsum(1), jaccard, rtol=0, atol=1e-7)
    steps = jaccard.diff(prepend=torch.zeros(1, 1, dtype=torch.float64))
    torch.testing.assert_close(slopes.gather(1, order).double(), steps, rtol=1e-5, atol=1e-12)


# --- the auxiliary head --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_auxiliary_logits_have_their_own_term_in_training(name):
    logits, mask = case()
    aux, _ = case(seed=1)
    loss = make(name, aux_weight=0.3)
    result = terms(loss, logits, mask, aux_logits=aux)
    assert list(result) == [name, f"aux_{name}"]
    close(result[name], value(loss, logits, mask).item())
    close(result[f"aux_{name}"], 0.3 * value(loss, aux, mask).item())
    assert list(terms(loss.eval(), logits, mask, aux_logits=aux)) == [name]
    assert list(terms(make(name, aux_weight=0), logits, mask, aux_logits=aux)) == [name]


def test_the_factor_of_the_auxiliary_term_is_a_half():
    logits, mask = case()
    result = terms(make("cross_entropy"), logits, mask, aux_logits=logits)
    close(result["aux_cross_entropy"], result["cross_entropy"].item() / 2)


# --- class weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (WEIGHTS, WEIGHTS),
        ({"car": 4.0, "sky": 0.0}, [0, 1, 4, 1]),
        ("balanced", compute_class_weight("balanced", classes=np.arange(4), y=np.repeat(np.arange(4), PIXELS))),
    ],
    ids=["list", "mapping", "balanced"],
)
@pytest.mark.parametrize("name", MAKERS)
def test_class_weights(name, given, expected):
    loss = make(name, class_weights=given)
    np.testing.assert_allclose(loss.weight.numpy(), expected, rtol=1e-6)
    assert loss.state_dict() == {}


def test_balanced_weights_have_mean_1_also_where_a_class_does_not_occur():
    pixels = np.array([30, 50, 0, 20])
    weight = make("dice", pixels=pixels, class_weights="balanced").weight.numpy()
    np.testing.assert_allclose(weight, [100 / (3 * 30), 100 / (3 * 50), 1, 100 / (3 * 20)], rtol=1e-6)
    assert np.average(weight, weights=pixels) == pytest.approx(1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cars": 2.0}, "class_weights: unknown class 'cars'; did you mean 'car'?"),
        ([1.0, 2.0], "2 weights for 4 classes; expected one for each of: sky, road, car, pole"),
        ([0.0] * 4, "class_weights: all are 0; expected at least one above 0"),
        ("balanced", "not counted; write `task: {name: segmentation, count_pixels: true}`"),
    ],
)
def test_weights_that_do_not_fit(given, message):
    with pytest.raises(FtengineError) as caught:
        make("dice", pixels=None, class_weights=given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        lambda: CrossEntropyOptions(class_weights=[1.0, -1.0]),
        lambda: CrossEntropyOptions(class_weights="balance"),
        lambda: CrossEntropyOptions(aux_weight=-1),
        lambda: TverskyOptions(alpha=0, beta=0),
        lambda: TverskyOptions(gamma=0),
        lambda: FocalOptions(gamma=float("nan")),
    ],
)
def test_options_that_make_no_sense(options):
    with pytest.raises(ValueError, match="validation error"):
        options()
