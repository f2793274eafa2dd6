"""The metrics beside their definitions, computed with NumPy from the masks themselves."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from ftengine.plugin import Options
from ftengine.protocols import LabelMap, MetricContext
from ftengine_segmentation import metrics
from ftengine_segmentation.options import MetricOptions

NAMES = ("sky", "road", "car", "pole")
FACTORIES = {
    "mean_iou": (metrics.mean_iou, MetricOptions),
    "dice": (metrics.dice, MetricOptions),
    "pixel_accuracy": (metrics.pixel_accuracy, Options),
}


def make(name, names=NAMES, **options):
    factory, model = FACTORIES[name]
    return factory(model(**options), MetricContext(task=SimpleNamespace(labels=LabelMap(tuple(names), ignore=255))))


def masks(seed=0, sizes=((6, 8), (5, 3), (9, 9)), classes=3, ignored=0.2):
    """Predictions and targets of several sizes; of the four classes the last does not occur."""
    generator = np.random.default_rng(seed)
    predictions, targets = [], []
    for size in sizes:
        predictions.append(generator.integers(0, classes, size).astype(np.uint8))
        target = generator.integers(0, classes, size).astype(np.uint8)
        target[generator.random(size) < ignored] = 255
        targets.append(target)
    return predictions, targets


def update(metric, predictions, targets):
    metric.update(
        [{"mask": torch.from_numpy(p)} for p in predictions], {"mask": [torch.from_numpy(t) for t in targets]}
    )
    return metric


def pixels(predictions, targets):
    """(predicted, true) of all pixels that count, in one row each."""
    predicted = np.concatenate([p[t != 255] for p, t in zip(predictions, targets, strict=True)])
    true = np.concatenate([t[t != 255] for t in targets])
    return predicted, true


def numpy_iou(predicted, true, label):
    union = ((predicted == label) | (true == label)).sum()
    return ((predicted == label) & (true == label)).sum() / union if union else math.nan


def numpy_dice(predicted, true, label):
    sizes = (predicted == label).sum() + (true == label).sum()
    return 2 * ((predicted == label) & (true == label)).sum() / sizes if sizes else math.nan


@pytest.mark.parametrize(
    ("name", "mean_key", "key", "of_class"),
    [("mean_iou", "mean_iou", "iou", numpy_iou), ("dice", "dice", "dice", numpy_dice)],
)
def test_each_class_and_the_mean(name, mean_key, key, of_class):
    predictions, targets = masks()
    predicted, true = pixels(predictions, targets)
    each = [of_class(predicted, true, label) for label in range(4)]
    assert math.isnan(each[3])
    expected = {mean_key: np.mean(each[:3])} | {f"{key}/{n}": v for n, v in zip(NAMES, each, strict=True)}
    values = update(make(name), predictions, targets).compute()
    assert list(values) == list(expected)
    assert values == pytest.approx(expected, rel=1e-14, nan_ok=True)
    assert make(name, per_class=False).compute().keys() == {mean_key}


def test_they_agree_with_scikit_learn():
    predictions, targets = masks(seed=1)
    predicted, true = pixels(predictions, targets)
    iou = update(make("mean_iou"), predictions, targets)
    assert iou.compute()["mean_iou"] == pytest.approx(jaccard_score(true, predicted, average="macro"), rel=1e-14)
    assert update(make("dice"), predictions, targets).compute()["dice"] == pytest.approx(
        f1_score(true, predicted, average="macro"), rel=1e-14
    )
    np.testing.assert_array_equal(iou.matrix.numpy(), confusion_matrix(true, predicted, labels=range(4)))


def test_pixel_accuracy():
    predictions, targets = masks()
    predicted, true = pixels(predictions, targets)
    assert update(make("pixel_accuracy"), predictions, targets).compute() == {
        "pixel_accuracy": (predicted == true).mean()
    }


@pytest.mark.parametrize("name", ["mean_iou", "dice"])
def test_a_class_that_only_one_side_has_counts_as_0(name):
    predicted = np.array([[0, 0, 2, 2]], np.uint8)
    true = np.array([[0, 0, 1, 1]], np.uint8)
    values = update(make(name), [predicted], [true]).compute()
    each = [value for key, value in values.items() if "/" in key]
    assert each[:3] == [1, 0, 0]
    assert math.isnan(each[3])
    assert values[name] == pytest.approx(1 / 3)


def test_predictions_for_ignored_pixels_do_not_count():
    true = np.array([[0, 1, 255, 255]], np.uint8)
    one = update(make("mean_iou"), [np.array([[0, 1, 1, 1]], np.uint8)], [true])
    other = update(make("mean_iou"), [np.array([[0, 1, 3, 0]], np.uint8)], [true])
    assert one.compute()["mean_iou"] == 1
    assert torch.equal(one.matrix, other.matrix)
    assert math.isnan(other.compute()["iou/pole"])


@pytest.mark.parametrize("name", FACTORIES)
def test_without_pixels_there_is_no_value(name):
    nothing = np.full((2, 2), 255, np.uint8)
    for metric in (make(name), update(make(name), [nothing * 0], [nothing])):
        assert all(math.isnan(value) for value in metric.compute().values())


@pytest.mark.parametrize("name", FACTORIES)
def test_a_stack_a_list_and_any_grouping_are_the_same(name):
    predictions, targets = masks(sizes=[(6, 7)] * 4)
    whole = update(make(name), predictions, targets)
    stacked = make(name)
    stacked.update([{"mask": torch.from_numpy(p)} for p in predictions], {"mask": torch.from_numpy(np.stack(targets))})
    first, second = update(make(name), predictions[:1], targets[:1]), update(make(name), predictions[1:], targets[1:])
    first.merge(second)
    for other in (stacked, first):
        assert torch.equal(other.matrix, whole.matrix)
        assert other.compute() == pytest.approx(whole.compute(), rel=0, nan_ok=True)
    whole.reset()
    assert whole.matrix.sum() == 0


def test_the_details_are_the_matrix_with_its_names():
    metric = update(make("mean_iou"), [np.array([[0, 1, 1]], np.uint8)], [np.array([[0, 0, 2]], np.uint8)])
    details = json.loads(json.dumps(metric.details()))
    assert details == {
        "names": list(NAMES),
        "matrix": [[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]],
    }


def test_counts_are_exact_beyond_what_floats_hold():
    """2^53 + 1 is no float64, and 2^24 + 1 no float32."""
    metric = update(make("pixel_accuracy"), [np.zeros((1, 2), np.uint8)], [np.array([[0, 1]], np.uint8)])
    other = make("pixel_accuracy")
    other.matrix[0, 0] = 2**53
    metric.merge(other)
    assert metric.matrix.dtype == torch.int64
    assert metric.matrix[0, 0].item() == 2**53 + 1


def test_all_255_classes():
    names = [f"class {i}" for i in range(255)]
    predicted = np.arange(255, dtype=np.uint8)[None]
    true = np.array([[*range(254), 255]], np.uint8)
    metric = update(make("mean_iou", names), [predicted], [true])
    assert torch.equal(metric.matrix, torch.diag(torch.tensor([1] * 254 + [0])))


def test_what_is_said_of_ignored_pixels_does_not_matter():
    true = np.array([[0, 1, 255], [3, 255, 2]], np.uint8)
    metric = update(make("mean_iou"), [true], [true])
    assert torch.equal(metric.matrix, torch.eye(4, dtype=torch.int64))


def test_predictions_that_cannot_be_compared():
    with pytest.raises(ValueError, match=r"a predicted mask of \[2, 3\] for one of \[3, 2\] pixels"):
        update(make("dice"), [np.zeros((2, 3), np.uint8)], [np.zeros((3, 2), np.uint8)])
    with pytest.raises(ValueError, match="values from 0 to 4; there are 4 classes"):
        update(make("dice"), [np.array([[0, 4]], np.uint8)], [np.zeros((1, 2), np.uint8)])
    with pytest.raises(ValueError, match="argument 2 is longer"):
        update(make("dice"), [np.zeros((1, 1), np.uint8)], [np.zeros((1, 1), np.uint8)] * 2)
    with pytest.raises(TypeError, match="cannot merge Dice into MeanIou"):
        make("mean_iou").merge(make("dice"))
