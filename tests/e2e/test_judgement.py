"""Which evaluation is the best, and what is held out of the training split."""

import json
import math

import pytest

from ftengine.evaluate import Evaluation
from ftengine.judge import Judge


@pytest.mark.parametrize(
    ("loss", "accuracy", "best"),
    [(0.5, 0.9, True), (math.nan, 0.9, False), (math.inf, 0.9, False), (0.5, math.nan, False)],
)
def test_what_is_not_finite_is_never_the_best(loss, accuracy, best):
    judge = Judge("max", None)
    assert judge(Evaluation({"loss": loss, "accuracy": accuracy}, accuracy), 7, 1) is best
    assert judge.best.step == (7 if best else 0)


def test_an_evaluation_without_a_loss_can_be_the_best():
    assert Judge("max", None)(Evaluation({"accuracy": 0.9}, 0.9), 7, 1)


def test_history_is_larger_where_it_is_better():
    for mode, expected in (("max", [0.5, 0.7]), ("min", [-0.5, -0.7])):
        judge = Judge(mode, None)
        assert [judge(Evaluation({}, value), 1, 1) for value in (0.5, 0.7)] == [True, mode == "max"]
        assert judge.history == expected
        again = Judge(mode, None)
        again.load_state(json.loads(json.dumps(judge.state())))
        assert (again.history, again.best) == (judge.history, judge.best)


def test_fractions_are_of_the_whole_training_split(runs):
    run = runs({"data": {"limit": 80, "val_fraction": 0.25, "test_fraction": 0.5}})
    assert "data digits: 20 train, 20 val, 40 test" in run.result.output


def test_fractions_must_leave_something(config_file, cli):
    file = config_file({"data": {"limit": 80, "val_fraction": 0.5, "test_fraction": 0.6}})
    result = cli("config", "check", file)
    assert result.exit_code == 2
    assert "val_fraction and test_fraction hold out 1.1 of `train`, which leaves nothing of it" in result.output


@pytest.mark.parametrize(("key", "value"), [("std", [0.2, 0.0, 0.2]), ("mean", [123.7, 116.3, 103.5])])
def test_means_and_deviations_are_of_images_in_0_to_1(config_file, cli, key, value):
    result = cli("config", "check", config_file({"image": {key: value}}))
    assert result.exit_code == 2
    assert f"image.{key}[" in result.output
