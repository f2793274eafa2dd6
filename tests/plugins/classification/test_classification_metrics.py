import json
import math
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from ftengine.errors import FtengineError
from ftengine.plugin import Options
from ftengine.protocols import LabelMap, MetricContext
from ftengine_classification import metrics
from ftengine_classification.options import AurocOptions, AverageOptions, TopKOptions

NAMES = ("ants", "bees", "cats", "dogs")
SINGLE = ("accuracy", "top_k", "precision", "recall", "f1", "auroc", "confusion_matrix")
MULTI = ("accuracy", "exact_match", "precision", "recall", "f1", "auroc", "confusion_matrix")
OPTIONS = {
    "top_k": TopKOptions(k=2),
    "precision": AverageOptions(per_class=True),
    "recall": AverageOptions(per_class=True),
    "f1": AverageOptions(per_class=True),
    "auroc": AurocOptions(per_class=True),
}
CASES = [(name, False) for name in SINGLE] + [(name, True) for name in MULTI]


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def make(name, multi_label=False, options=None, threshold=0.5):
    task = SimpleNamespace(
        labels=LabelMap(NAMES),
        multi_label=multi_label,
        field="labels" if multi_label else "label",
        threshold=threshold,
    )
    return getattr(metrics, name)(options or OPTIONS.get(name, Options()), MetricContext(task=task))


def data(multi_label=False, n=60, classes=range(4), seed=0):
    """Scores float32 [N, 4] and targets that agree with them more often than not; only `classes` occur."""
    rng = np.random.default_rng(seed)
    if multi_label:
        y = np.zeros((n, 4), dtype=np.int64)
        y[:, list(classes)] = rng.random((n, len(classes))) < 0.4
        scores = 1 / (1 + np.exp(-(y * 1.5 - 0.7 + rng.normal(size=(n, 4)))))
    else:
        y = rng.choice(list(classes), size=n)
        logits = np.eye(4)[y] * 1.5 + rng.normal(size=(n, 4))
        scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return scores.astype(np.float32), y


def feed(metric, scores, y, size=None):
    size = size or len(y)
    for start in range(0, len(y), size):
        part = slice(start, start + size)
        targets = torch.tensor(y[part])
        if metric.multi_label:
            targets = targets.float()
        metric.update([{"scores": torch.tensor(row)} for row in scores[part]], {metric.field: targets})
    return metric


@pytest.mark.parametrize(("name", "multi_label"), CASES)
def test_batches_and_merging_do_not_change_the_values(name, multi_label):
    scores, y = data(multi_label)
    whole = feed(make(name, multi_label), scores, y)
    expected = whole.compute()
    assert all(math.isfinite(value) for value in expected.values())
    batches = feed(make(name, multi_label), scores, y, size=7)
    assert batches.compute() == expected
    # A result asked for before must not be kept; nor must merging into an unused metric matter.
    left, right = feed(make(name, multi_label), scores[:20], y[:20]), feed(make(name, multi_label), scores[20:], y[20:])
    assert left.compute() != expected
    left.merge(pickle.loads(pickle.dumps(right)))
    assert left.compute() == expected
    unused = make(name, multi_label)
    unused.merge(left)
    assert unused.compute() == expected
    assert unused.details() == whole.details()
    unused.reset()
    feed(unused, scores, y)
    assert unused.compute() == expected


@pytest.mark.parametrize(("name", "multi_label"), CASES)
def test_without_samples_every_value_is_nan(name, multi_label):
    metric = make(name, multi_label)
    metric.update([], {metric.field: torch.zeros(0)})
    values = metric.compute()
    assert values
    assert all(math.isnan(value) for value in values.values())
    feed(metric, *data(multi_label))
    metric.reset()
    assert all(math.isnan(value) for value in metric.compute().values())


def test_metrics_of_another_kind_do_not_merge():
    with pytest.raises(TypeError, match="cannot merge Accuracy into Auroc"):
        make("auroc").merge(make("accuracy"))


def test_accuracy():
    scores, y = data()
    assert feed(make("accuracy"), scores, y).compute() == {"accuracy": np.mean(scores.argmax(1) == y)}


def test_multi_label_accuracy_counts_decisions_and_exact_match_images():
    scores, y = data(multi_label=True)
    right = (scores >= 0.5) == y
    assert feed(make("accuracy", True), scores, y).compute()["accuracy"] == pytest.approx(right.mean(), abs=1e-12)
    exact = feed(make("exact_match", True), scores, y).compute()["exact_match"]
    assert exact == pytest.approx(sk.accuracy_score(y, scores >= 0.5), abs=1e-6)


def test_a_score_at_the_threshold_counts_as_predicted():
    scores, y = np.array([[0.3, 0.29, 0.9, 0.1]], np.float32), np.array([[1, 0, 1, 0]])
    for name, key in (("accuracy", "accuracy"), ("exact_match", "exact_match"), ("confusion_matrix", None)):
        metric = feed(make(name, True, threshold=0.3), scores, y)
        if key:
            assert metric.compute()[key] == 1
        else:
            assert metric.details()["matrix"][0] == [[0, 0], [0, 1]]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k(k):
    scores, y = data()
    values = feed(make("top_k", options=TopKOptions(k=k)), scores, y).compute()
    assert values == {f"top{k}_accuracy": sk.top_k_accuracy_score(y, scores, k=k, labels=range(4))}


def test_top_k_of_all_classes_is_always_right():
    assert feed(make("top_k", options=TopKOptions(k=4)), *data()).compute() == {"top4_accuracy": 1.0}


def test_top_k_of_too_few_classes():
    with pytest.raises(FtengineError, match=r"top_k: k is 5, but there are only 4 classes"):
        make("top_k", options=TopKOptions(k=5))


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
@pytest.mark.parametrize("multi_label", [False, True], ids=["label", "labels"])
def test_rates_are_those_of_scikit_learn(name, average, multi_label):
    scores, y = data(multi_label)
    values = feed(make(name, multi_label, AverageOptions(average=average, per_class=True)), scores, y).compute()
    predicted = (scores >= 0.5).astype(int) if multi_label else scores.argmax(1)
    theirs = getattr(sk, f"{name}_score")
    assert values[name] == pytest.approx(theirs(y, predicted, average=average), abs=1e-9)
    each = theirs(y, predicted, average=None)
    assert [values[f"{name}/{class_name}"] for class_name in NAMES] == pytest.approx(each, abs=1e-9)
    plain = feed(make(name, multi_label, AverageOptions(average=average)), scores, y).compute()
    assert plain == {name: values[name]}


@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
@pytest.mark.parametrize("multi_label", [False, True], ids=["label", "labels"])
def test_a_class_neither_present_nor_predicted_has_no_rate(name, multi_label):
    scores, y = data(multi_label, classes=[0, 1, 2])
    scores[:, 3] = 0
    values = feed(make(name, multi_label), scores, y).compute()
    assert math.isnan(values[f"{name}/dogs"])
    assert values[name] == pytest.approx(np.mean([values[f"{name}/{c}"] for c in NAMES[:3]]))
    weighted = feed(make(name, multi_label, AverageOptions(average="weighted")), scores, y).compute()
    assert math.isfinite(weighted[name])


def test_a_class_that_is_never_found_counts_as_zero():
    scores = np.eye(4, dtype=np.float32)[[0, 0, 1]]
    values = feed(make("precision"), scores, np.array([0, 1, 0])).compute()
    assert values["precision/bees"] == 0
    assert values["precision"] == pytest.approx((0.5 + 0) / 2)


@pytest.mark.parametrize("multi_label", [False, True], ids=["label", "labels"])
def test_auroc(multi_label):
    scores, y = data(multi_label)
    # Some ties, so that they are counted as half.
    scores = np.round(scores, 1)
    values = feed(make("auroc", multi_label), scores, y).compute()
    positive = y if multi_label else np.eye(4)[y]
    each = [sk.roc_auc_score(positive[:, i], scores[:, i]) for i in range(4)]
    assert [values[f"auroc/{name}"] for name in NAMES] == pytest.approx(each, abs=1e-6)
    assert values["auroc"] == pytest.approx(np.mean(each), abs=1e-6)
    assert list(feed(make("auroc", multi_label, AurocOptions()), scores, y).compute()) == ["auroc"]


@pytest.mark.parametrize("multi_label", [False, True], ids=["label", "labels"])
def test_auroc_leaves_out_one_sided_classes(multi_label):
    scores, y = data(multi_label, classes=[0, 1, 2])
    if multi_label:
        y[:, 2] = 1
    values = feed(make("auroc", multi_label), scores, y).compute()
    defined = NAMES[:2] if multi_label else NAMES[:3]
    assert math.isnan(values["auroc/dogs"])
    assert math.isnan(values["auroc/cats"]) == multi_label
    assert values["auroc"] == pytest.approx(np.mean([values[f"auroc/{name}"] for name in defined]), abs=1e-6)


def test_confusion_matrix():
    scores, y = data(classes=[0, 1, 2])
    metric = feed(make("confusion_matrix"), scores, y)
    expected = sk.confusion_matrix(y, scores.argmax(1), labels=range(4))
    details = json.loads(json.dumps(metric.details()))
    assert details == {"names": list(NAMES), "matrix": expected.tolist()}
    recalls = sk.recall_score(y, scores.argmax(1), labels=[0, 1, 2], average="macro")
    assert metric.compute()["balanced_accuracy"] == pytest.approx(recalls)


def test_multi_label_confusion_matrix():
    scores, y = data(multi_label=True, classes=[0, 1, 2])
    metric = feed(make("confusion_matrix", True), scores, y)
    expected = sk.multilabel_confusion_matrix(y, scores >= 0.5)
    assert metric.details() == {"names": list(NAMES), "matrix": expected.tolist()}
    each = [sk.balanced_accuracy_score(y[:, i], scores[:, i] >= 0.5) for i in range(3)]
    assert metric.compute()["balanced_accuracy"] == pytest.approx(np.mean(each))
