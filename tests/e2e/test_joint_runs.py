"""Two tasks on one backbone and one stream."""

import csv
import io
import json

import numpy as np
import pytest
import torch

JOINT = {
    "task": None,
    "tasks": {
        "digit": {"task": "classification", "metrics": ["accuracy"]},
        "ink": {"task": "regression", "metrics": ["mae"], "weight": 0.5},
    },
    "data": {"targets": ["value", "ink"], "test_fraction": 0.2},
}


@pytest.fixture(scope="module")
def joint(runs):
    return runs(JOINT)


def test_every_term_is_logged_and_the_loss_is_their_weighted_sum(joint):
    lines = joint.lines("train")
    assert lines
    for line in lines:
        assert {key for key in line if key.startswith("loss/")} == {"loss/digit/cross_entropy", "loss/ink/mse"}
        assert line["loss"] == pytest.approx(line["loss/digit/cross_entropy"] + 0.5 * line["loss/ink/mse"], rel=1e-6)


def test_values_are_named_by_task(joint):
    summary = joint.summary
    assert summary["task"] == ["digit", "ink"]
    assert summary["primary"] == "digit/accuracy"
    for split in ("val", "test"):
        names = {"loss", "digit/accuracy", "ink/mae", "ink/mae/value", "ink/mae/ink"}
        assert summary["metrics"][split].keys() == names


def test_one_stream_one_backbone(joint):
    assert joint.result.stdout.count("data digits: ") == 1
    prefixes = {name.split(".")[0] + "." + name.split(".")[1] for name in joint.tensors() if name.startswith("heads")}
    assert prefixes == {"heads.digit", "heads.ink"}


def test_a_task_of_small_weight_hardly_moves_the_backbone(runs):
    """One step of SGD from the same start: the step is the weighted sum of the tasks' own steps."""
    one_step = {
        "data": {"format": "digits", "limit": 64, "val_fraction": 0.75, "targets": ["value"]},
        "backbone": {"norm": "none"},
        "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.0},
        "train": {"epochs": 1},
        "task": None,
    }

    def weights(digit, ink, lr=0.1):
        tasks = {
            "digit": {"task": "classification", "metrics": ["accuracy"], "weight": digit},
            "ink": {"task": "regression", "metrics": ["mae"], "weight": ink},
        }
        run = runs({**one_step, "tasks": tasks, "optimizer": {"name": "sgd", "lr": lr, "weight_decay": 0.0}})
        return run.tensors()["backbone.stages.c1.0.weight"].double()

    start = weights(1.0, 1.0, lr=1e-30)
    digit, ink = weights(1.0, 1e-12) - start, weights(1e-12, 1.0) - start
    assert float(digit.norm()) > 1e-5
    assert float(ink.norm()) > 1e-5
    both = weights(0.25, 2.0) - start
    torch.testing.assert_close(both, 0.25 * digit + 2.0 * ink, rtol=0, atol=1e-6)


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluate(joint, cli, split):
    assert cli("evaluate", joint.directory, "--split", split).exit_code == 0
    measured = json.loads((joint.directory / f"evaluation-{split}.json").read_text())
    assert measured["metrics"] == joint.summary["metrics"][split]


def test_predict(joint, cli, write_image, tmp_path):
    paths = [write_image(tmp_path / f"{index}.png", seed=index) for index in range(3)]
    result = cli("predict", joint.directory, *paths)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    for row in rows:
        probabilities = [float(row[f"digit/p({digit})"]) for digit in range(10)]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert row["digit/label"] == str(int(np.argmax(probabilities)))
        assert {"ink/value", "ink/ink"} <= row.keys()


def test_monitor_of_a_task(runs, config_file, cli):
    run = runs({**JOINT, "train": {"monitor": "ink/mae"}})
    by_step = {line["step"]: line["ink/mae"] for line in run.lines("val")}
    assert run.summary["best_step"] == min(by_step, key=by_step.get)
    result = cli("config", "check", config_file({**JOINT, "train": {"monitor": "mae"}}))
    assert result.exit_code == 2
    assert "unknown metric 'mae'; did you mean 'ink/mae'?" in result.stderr


def test_keys_of_one_task_beside_tasks(config_file, cli, third_party):
    result = cli("config", "check", config_file({**JOINT, "head": "linear", "task": "classification"}))
    assert result.exit_code == 2
    for key in ("head", "task"):
        assert f"{key}: belongs to a run with one task; with `tasks`, give it to each of them" in result.stderr


def test_tasks_with_data_of_their_own(runs, image_folder, tmp_path):
    """Two streams of unequal length: an epoch is the longer one's, the shorter one begins anew."""
    image_folder(tmp_path / "train", count=8)
    tasks = {
        "colour": {
            "task": "classification",
            "metrics": ["accuracy"],
            "data": {"format": "folder", "root": str(tmp_path), "train": "train"},
        },
        "ink": {"task": "regression", "metrics": ["mae"], "data": {"format": "digits", "limit": 80}},
    }
    run = runs({"task": None, "data": None, "tasks": tasks})
    assert [line["step"] for line in run.lines("train")] == list(range(1, 9)), "64 digits in batches of 16, twice"
    for line in run.lines("train"):
        assert line["loss"] == pytest.approx(line["loss/colour/cross_entropy"] + line["loss/ink/mse"], rel=1e-6)
    assert {"colour/accuracy", "ink/mae"} <= run.summary["metrics"]["val"].keys()


def test_a_joint_run_that_was_stopped_ends_with_the_same_bytes(runs, cli, tmp_path):
    trigger = tmp_path / "trigger"
    loss = {"name": "saboteur/failing", "what": "SIGINT", "at": 2, "trigger": str(trigger)}
    changes = {**JOINT, "tasks": {**JOINT["tasks"], "digit": {**JOINT["tasks"]["digit"], "loss": loss}}}
    whole = runs(changes)
    trigger.touch()
    stopped = runs(changes, exit_code=130)
    trigger.unlink()
    result = cli("run", "--resume", stopped.directory)
    assert result.exit_code == 0, result.output
    assert stopped.bytes() == whole.bytes()
    assert stopped.summary["metrics"] == whole.summary["metrics"]
