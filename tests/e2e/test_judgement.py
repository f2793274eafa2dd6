"""Which evaluation is the best, and what is held out of the training split."""

import math
from types import SimpleNamespace

import pytest

from ftengine.evaluate import Evaluation
from ftengine.training import Best, Training


@pytest.fixture
def training():
    silent = SimpleNamespace(log=lambda *_: None, evaluated=lambda *_: None)
    made = SimpleNamespace(
        plan=SimpleNamespace(
            config=SimpleNamespace(train=SimpleNamespace(early_stopping=None)), monitor=SimpleNamespace(mode="max")
        ),
        best=Best(),
        step=7,
        epoch=1.0,
        epoch_loss=(0.0, 0),
        tracker=silent,
    )
    made._headline = dict
    made._gain = lambda *values: Training._gain(made, *values)
    return made


@pytest.mark.parametrize(
    ("loss", "accuracy", "best"),
    [(0.5, 0.9, True), (math.nan, 0.9, False), (math.inf, 0.9, False), (0.5, math.nan, False)],
)
def test_what_is_not_finite_is_never_the_best(training, loss, accuracy, best):
    Training.judge(training, Evaluation({"loss": loss, "accuracy": accuracy}, accuracy), 1)
    assert training.is_best is best
    assert training.best.step == (7 if best else 0)


def test_an_evaluation_without_a_loss_can_be_the_best(training):
    Training.judge(training, Evaluation({"accuracy": 0.9}, 0.9), 1)
    assert training.is_best


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
