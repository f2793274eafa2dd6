"""Runs whose images are mixed, erased and skip blocks: functions of the seed, in training only, and they learn."""

from __future__ import annotations

import itertools
import os
import signal

import pytest
import torch

from ftengine.mixing import Mixing

MIXED = {
    "mix": {"mixup": 0.4, "cutmix": 1.0, "p": 0.8},
    "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
    "augment": [{"name": "Erasing", "p": 0.5}],
}
DEEP = {
    **MIXED,
    "backbone": {"name": "mobilenet_v3_small", "stochastic_depth": 0.5},
    "head": {"name": "linear", "dropout": 0.2},
}


@pytest.fixture(scope="module")
def mixed(runs):
    return runs(MIXED)


def test_the_same_seed_gives_the_same_bytes(mixed, runs):
    assert runs(MIXED).bytes() == mixed.bytes()
    assert runs({**MIXED, "train": {"workers": 2}}).bytes() == mixed.bytes()


def test_mixing_is_really_on_and_in_training_only(mixed, runs):
    plain = runs({**MIXED, "mix": None})
    assert plain.bytes() != mixed.bytes()
    first = [run.lines("val")[0] for run in (mixed, plain)]
    assert first[0]["step"] == 0
    assert first[0] == first[1], "the evaluation before training sees images and labels as they are"
    assert mixed.resolved["mix"] == {"mixup": 0.4, "cutmix": 1.0, "p": 0.8}


def test_but_for_the_mixing_the_runs_are_the_same(runs, monkeypatch):
    plain = runs({**MIXED, "mix": None})
    monkeypatch.setattr(Mixing, "__call__", lambda self, batch, names: batch)
    assert runs(MIXED).bytes() == plain.bytes()


@pytest.mark.parametrize(
    "changes",
    [MIXED, pytest.param(DEEP, marks=pytest.mark.slow)],
    ids=["mixed", "mixed, stochastic depth, dropout"],
)
@pytest.mark.parametrize("stop", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_ends_with_the_same_bytes(runs, cli, monkeypatch, changes, stop):
    """Two epochs of three steps; stopped in the middle or at the end of an epoch."""
    whole = runs(changes)
    calls, mix = itertools.count(1), Mixing.__call__

    def interrupted(self, batch, names):
        if next(calls) == stop:
            os.kill(os.getpid(), signal.SIGINT)
        return mix(self, batch, names)

    with monkeypatch.context() as patch:
        patch.setattr(Mixing, "__call__", interrupted)
        stopped = runs(changes, exit_code=130)
    assert stopped.checkpoint().name == f"step-{stop:08d}"
    assert cli("run", "--resume", stopped.directory).exit_code == 0
    assert stopped.bytes() == whole.bytes()
    assert stopped.summary["metrics"] == whole.summary["metrics"]


def test_stochastic_depth_is_on_in_training_only(runs):
    deep, plain = runs(DEEP), runs({**DEEP, "backbone": {"name": "mobilenet_v3_small"}})
    assert deep.bytes() != plain.bytes()
    assert deep.lines("val")[0] == plain.lines("val")[0]
    assert deep.tensors().keys() == plain.tensors().keys()


def test_parts_of_a_batch_are_mixed_by_themselves(runs):
    run = runs({**MIXED, "train": {"accumulate": 4}})
    assert all(torch.isfinite(tensor).all() for tensor in run.tensors().values())
    alone = runs({**MIXED, "backbone": {"norm": "none"}, "train": {"accumulate": 16}}, exit_code=2)
    assert "train.accumulate: 16 parts of one image each leave none to mix with" in alone.result.stderr


def test_tasks_of_one_stream_are_mixed_alike(runs):
    own = {"task": "classification", "loss": "cross_entropy"}
    changes = {"task": None, "tasks": {"one": own, "two": {**own, "loss": {"name": "focal", "gamma": 0}}}}
    run = runs({**changes, "mix": {"cutmix": 1.0}})
    first = run.lines("train")[0]
    assert {"loss/one/cross_entropy", "loss/two/focal"} <= first.keys()
    assert run.bytes() != runs(changes).bytes()


@pytest.mark.parametrize("loss", ["cross_entropy", pytest.param("focal", marks=pytest.mark.slow)])
def test_it_learns(runs, loss):
    changes = {"data": {"limit": 400}, "train": {"epochs": 8}, "optimizer": {"lr": 0.02}, "loss": {"name": loss}}
    run = runs({**changes, "mix": {"mixup": 0.2, "cutmix": 1.0, "p": 0.5}})
    assert run.summary["metrics"]["val"]["accuracy"] > 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"task": "regression", "data": {"targets": ["value"]}, "mix": {"mixup": 0.2}},
            "mix: the targets of regression (regression, `values`) cannot be mixed between images",
        ),
        ({"mix": {"p": 0.5}}, "mix: takes `mixup`, `cutmix` or both, got neither"),
        ({"mix": {"mixup": 0.0}}, "mix.mixup"),
        ({"augment": ["MixUp"]}, "images of a batch are mixed by the config's section `mix`: {mixup: 0.2}"),
        ({"augment": ["RandomErasing"]}, "unknown augmentation 'RandomErasing'; use Erasing"),
        ({"backbone": {"name": "resnet18", "stochastic_depth": 1.0}}, "backbone.stochastic_depth"),
    ],
)
def test_configs_that_are_refused(config_file, cli, third_party, changes, message):
    result = cli("config", "check", config_file(changes))
    assert result.exit_code == 2
    assert message in result.output
