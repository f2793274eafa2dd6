import json
import math
import pickle

import numpy as np
import pytest
import torch

from ftengine.errors import DataError, FtengineError
from ftengine.protocols import Dataset, TaskContext
from ftengine_regression.options import TaskOptions
from ftengine_regression.task import Regression


class Listed(Dataset):
    def __init__(self, names, rows):
        self.names = {"values": tuple(names)}
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def target(self, index):
        return {"values": self.rows[index]}

    def image(self, index):
        raise AssertionError("a task must not decode images")

    def sample_id(self, index):
        return f"sample-{index}.png"


NAMES = ("price_usd", "rooms")
ROWS = [np.array(row, np.float32) for row in ([100, 2], [1000, 4], [10000, 9])]


def make(**options):
    return Regression(TaskOptions(**options), TaskContext(field="values"))


def fitted(names=NAMES, rows=ROWS, **options):
    task = make(**options)
    task.fit(Listed(names, rows))
    return task


def test_statistics_of_the_training_split():
    task = fitted()
    assert task.names == NAMES
    assert task.transforms == ("none", "none")
    np.testing.assert_allclose(task.mean, [3700, 5], rtol=1e-12)
    np.testing.assert_allclose(task.std, [np.std([100, 1000, 10000]), np.std([2, 4, 9])], rtol=1e-12)
    assert task.mean.dtype == np.float64


def test_statistics_are_taken_after_the_transform():
    task = fitted(transform={"price_usd": "log", "rooms": "log1p"})
    assert task.transforms == ("log", "log1p")
    step = math.log(10)
    np.testing.assert_allclose(task.mean, [math.log(1000), np.log([3, 5, 10]).mean()], rtol=1e-7)
    np.testing.assert_allclose(task.std, [step * math.sqrt(2 / 3), np.log([3, 5, 10]).std()], rtol=1e-7)
    assert fitted(transform="log").transforms == ("log", "log")


def test_statistics_of_large_values_do_not_cancel():
    rows = [np.array([1e7 + i], np.float32) for i in range(3)]
    task = fitted(["x"], rows)
    np.testing.assert_allclose(task.mean, [1e7 + 1])
    np.testing.assert_allclose(task.std, [math.sqrt(2 / 3)])


def test_without_standardizing_the_scale_stays():
    task = fitted(standardize=False)
    assert task.mean.tolist() == [0, 0]
    assert task.std.tolist() == [1, 1]


def test_targets_choose_and_order():
    task = fitted(targets=["rooms"])
    assert task.names == ("rooms",)
    np.testing.assert_allclose(task.mean, [5])
    assert fitted(targets=["rooms", "price_usd"]).mean.tolist() == [5, 3700]


def test_state_is_json_and_comes_back():
    task = fitted(transform={"price_usd": "log"})
    again = make(transform={"price_usd": "log"})
    again.load_state(json.loads(json.dumps(task.state())))
    assert again.names == task.names
    assert again.transforms == task.transforms
    np.testing.assert_array_equal(again.mean, task.mean)
    np.testing.assert_array_equal(again.std, task.std)


def test_encoder_goes_by_name_and_pickles():
    data = Listed(["rooms", "area", "price_usd"], [np.array([3, 70, 500], np.float32)])
    encoder = pickle.loads(pickle.dumps(fitted().encoder(data, "val")))
    values = encoder(data.target(0))["values"]
    assert values.tolist() == [500, 3]
    assert values.dtype == np.float32


@pytest.mark.parametrize(
    ("options", "names", "rows", "message"),
    [
        ({"targets": ["prices_usd"]}, NAMES, ROWS, "train: unknown target 'prices_usd'; did you mean 'price_usd'?"),
        ({"targets": ["rooms", "rooms"]}, NAMES, ROWS, "train: targets given more than once: rooms"),
        ({}, ["x"], [[1.0], [1.0]], "train: target 'x' is 1 in every sample; expected values that vary"),
        ({}, ["x"], [[0.1]] * 3, "train: target 'x' is 0.1 in every sample"),
        ({}, ["x"], [[1.0], [math.nan]], "train: sample 'sample-1.png': target 'x' is nan; expected a finite number"),
        ({}, ["x"], [[math.inf], [1.0]], "train: sample 'sample-0.png': target 'x' is inf"),
        ({}, ["x"], [[1.0], None], "train: sample 'sample-1.png': the values are missing; expected 1 number"),
        ({}, ["x", "y"], [[1.0]], "train: sample 'sample-0.png': the values have the shape [1]; expected [2]"),
        ({}, ["x"], [["much"]], "train: sample 'sample-0.png': the values are ['much']; expected numbers"),
        ({}, ["x"], [], "train: no samples"),
        ({}, [], [[]], "train: the data name no values to learn"),
        (
            {"transform": "log"},
            ["x"],
            [[1.0], [-2.0]],
            "train: sample 'sample-1.png': target 'x' is -2; transform log needs values above 0",
        ),
        (
            {"transform": "log"},
            ["x"],
            [[1.0], [0.0]],
            "values above 0; transform log1p allows zeros",
        ),
        ({"transform": "log1p"}, ["x"], [[0.0], [-1.0]], "target 'x' is -1; transform log1p needs values above -1"),
    ],
)
def test_unusable_training_data(options, names, rows, message):
    with pytest.raises(DataError) as caught:
        make(**options).fit(Listed(names, rows))
    assert message in str(caught.value)


def test_a_transform_of_an_unknown_target():
    with pytest.raises(FtengineError, match=r"transform: unknown target 'room'; did you mean 'rooms'\?"):
        make(transform={"room": "log"}).fit(Listed(NAMES, ROWS))


def test_another_split_is_checked_too():
    task = fitted(transform={"price_usd": "log"})
    with pytest.raises(DataError, match=r"^val: sample 'sample-0.png': target 'price_usd' is 0; transform log"):
        task.encoder(Listed(NAMES, [[0.0, 1.0]]), "val")
    with pytest.raises(DataError, match=r"^val: unknown target 'rooms'; known: price_usd"):
        task.encoder(Listed(["price_usd"], [[1.0]]), "val")


def test_a_target_that_is_not_learned_may_be_anything():
    task = fitted(targets=["rooms"], rows=[[math.nan, 1.0], [1.0, 2.0]])
    np.testing.assert_allclose(task.mean, [1.5])


def test_describe_names_each_value():
    assert fitted().describe({"values": torch.tensor([123.0, 2.5])}) == {"price_usd": 123.0, "rooms": 2.5}


def test_strata_are_deciles_of_the_first_target():
    rows = [[float(value), 0.0] for value in np.random.default_rng(0).permutation(100)]
    strata = make(targets=["a"]).strata(Listed(["a", "b"], rows))
    assert strata.dtype == np.int64
    assert [int(stratum) for stratum in strata] == [int(row[0]) // 10 for row in rows]


def test_strata_of_repeated_values_are_fewer():
    rows = [[0.0]] * 30 + [[1.0]] * 10
    strata = make().strata(Listed(["a"], rows))
    assert len(set(strata[:30])) == 1
    assert set(strata[:30]).isdisjoint(strata[30:])


def test_too_few_samples_have_no_strata():
    assert make().strata(Listed(["a"], [[float(i)] for i in range(19)])) is None
