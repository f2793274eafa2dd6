import math
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from ftengine.plugin import Options
from ftengine.protocols import MetricContext
from ftengine_regression import metrics

THEIRS = {
    "mae": sk.mean_absolute_error,
    "rmse": sk.root_mean_squared_error,
    "r2": sk.r2_score,
    "mape": sk.mean_absolute_percentage_error,
}


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def make(name, targets=("price_usd", "rooms")):
    return getattr(metrics, name)(Options(), MetricContext(task=SimpleNamespace(names=targets)))


def data(n=50, targets=2):
    rng = np.random.default_rng(0)
    true = rng.lognormal(size=(n, targets)) * [1e6, 3][:targets]
    return (true * rng.normal(1, 0.2, size=true.shape)).astype(np.float32), true.astype(np.float32)


def feed(metric, predicted, true, size=None):
    size = size or len(true)
    for start in range(0, len(true), size):
        part = slice(start, start + size)
        predictions = [{"values": torch.tensor(row)} for row in predicted[part]]
        metric.update(predictions, {"values": torch.tensor(true[part])})
    return metric


@pytest.mark.parametrize("name", THEIRS)
def test_values_are_those_of_scikit_learn(name):
    predicted, true = data()
    values = feed(make(name), predicted, true).compute()
    each = THEIRS[name](true.astype(np.float64), predicted.astype(np.float64), multioutput="raw_values")
    assert list(values) == [name, f"{name}/price_usd", f"{name}/rooms"]
    assert list(values.values()) == pytest.approx([each.mean(), *each], rel=1e-12)


@pytest.mark.parametrize("name", THEIRS)
def test_one_target_has_one_value(name):
    predicted, true = data(targets=1)
    values = feed(make(name, targets=("price_usd",)), predicted, true).compute()
    assert values == {name: pytest.approx(THEIRS[name](true.astype(np.float64), predicted.astype(np.float64)))}


def test_by_hand():
    predicted, true = np.array([[1.0], [2], [6]], np.float32), np.array([[1.0], [4], [4]], np.float32)
    values = {name: feed(make(name, targets=("x",)), predicted, true).compute()[name] for name in THEIRS}
    assert values == pytest.approx({"mae": 4 / 3, "rmse": math.sqrt(8 / 3), "r2": 1 - 8 / 6, "mape": 1 / 3})


@pytest.mark.parametrize("name", THEIRS)
def test_batches_and_merging_do_not_change_the_values(name):
    predicted, true = data()
    expected = feed(make(name), predicted, true).compute()
    assert feed(make(name), predicted, true, size=7).compute() == expected
    left, right = feed(make(name), predicted[:20], true[:20]), feed(make(name), predicted[20:], true[20:])
    assert left.compute() != expected
    left.merge(pickle.loads(pickle.dumps(right)))
    assert left.compute() == expected
    unused = make(name)
    unused.merge(left)
    assert unused.compute() == expected
    unused.reset()
    assert left.compute() == expected


def test_targets_that_are_written_over_do_not_change_what_was_seen():
    metric = make("mae", targets=("x",))
    targets = torch.tensor([[1.0]])
    metric.update([{"values": torch.tensor([3.0])}], {"values": targets})
    targets.zero_()
    assert metric.compute() == {"mae": 2.0}


@pytest.mark.parametrize("name", THEIRS)
def test_without_samples_every_value_is_nan(name):
    metric = make(name)
    metric.update([], {"values": torch.zeros(0, 2)})
    assert all(math.isnan(value) for value in metric.compute().values())
    feed(metric, *data())
    metric.reset()
    assert all(math.isnan(value) for value in metric.compute().values())


def test_other_metrics_do_not_merge():
    with pytest.raises(TypeError, match="cannot merge rmse into mae"):
        make("mae").merge(make("rmse"))


def test_r2_of_a_constant_target_is_left_out():
    predicted, true = data()
    true[:, 1] = 0.1
    values = feed(make("r2"), predicted, true).compute()
    assert math.isnan(values["r2/rooms"])
    assert values["r2"] == values["r2/price_usd"]
    one = np.array([[1.0]], np.float32)
    assert math.isnan(feed(make("r2", targets=("x",)), one, one).compute()["r2"])


def test_mape_of_a_zero_is_left_out():
    predicted, true = data()
    true[3, 0] = 0
    values = feed(make("mape"), predicted, true).compute()
    assert math.isnan(values["mape/price_usd"])
    assert values["mape"] == values["mape/rooms"]


def test_r2_of_large_values_with_small_deviations():
    true = np.array([[16000000.0], [16000001.0], [16000002.0], [16000003.0]], np.float32)
    predicted = true + np.array([[1.0], [0], [0], [0]], np.float32)
    assert feed(make("r2", targets=("x",)), predicted, true).compute()["r2"] == pytest.approx(1 - 1 / 5)


def test_errors_of_the_largest_numbers_stay_finite():
    largest = np.full((2, 1), torch.finfo(torch.float32).max, np.float32)
    true = np.array([[1.0], [2.0]], np.float32)
    for name in THEIRS:
        assert math.isfinite(feed(make(name, targets=("x",)), largest, true).compute()[name])
