"""`ftengine config`: check, show and schema."""

import json

import pytest
from click.testing import CliRunner

from ftengine.cli_config import config, leaves

DIGITS = """\
task: classification
data: digits
backbone: {name: resnet18, weights: none}
image: {size: 32}
metrics: [accuracy, {name: top_k, k: 3}]
"""


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(DIGITS)
    return lambda *arguments: CliRunner().invoke(config, arguments)


def test_check_says_that_nothing_is_wrong(call):
    result = call("check", "run.yaml")
    assert (result.exit_code, result.output) == (0, "run.yaml: no mistakes found\n")


def test_check_raises_all_mistakes(call):
    result = call("check", "run.yaml", "--set", "train.epochs=0", "--set", "train.sed=1")
    assert [problem.path for problem in result.exception.problems] == ["train.epochs", "train.sed"]
    assert result.exception.exit_code == 2


def test_show_says_where_every_value_came_from(call):
    result = call("show", "run.yaml", "--set", "train.epochs=5")
    assert result.exit_code == 0, result.exception
    rows = {line.split()[0]: line.split(maxsplit=1)[1].split("  ") for line in result.output.splitlines()}
    shown = {name: (row[0], row[-1].strip()) for name, row in rows.items()}
    assert shown["train.epochs"] == ("5", "--set train.epochs=5")
    assert shown["train.batch_size"] == ("32", "default")
    assert shown["task.name"] == ("classification", "run.yaml:1")
    assert shown["data.format"] == ("digits", "run.yaml:2")
    assert shown["data.val_fraction"] == ("0.2", "default")
    assert shown["backbone.weights.source"] == ("none", "run.yaml:3")
    assert shown["image.size"] == ("[32, 32]", "run.yaml:4")
    assert shown["metrics[0].name"] == ("accuracy", "run.yaml:5")
    assert shown["metrics[1].k"] == ("3", "run.yaml:5")
    assert shown["optimizer.name"] == ("adamw", "default")


def test_show_takes_the_task_from_the_command_line(call, tmp_path):
    (tmp_path / "run.yaml").write_text(DIGITS.replace("task: classification\n", "").replace("metrics", "#"))
    result = call("show", "run.yaml", "--task", "regression")
    line = next(line for line in result.output.splitlines() if line.startswith("task.name"))
    assert line.split() == ["task.name", "regression", "--task"]


def test_schema_is_json(call):
    assert json.loads(call("schema").output)["title"] == "ftengine config"


def test_leaves_are_values_and_lists_of_plain_values():
    data = {"a": {"b": 1, "c": []}, "d": [{"e": 2}, "f"], "g": [1, 2], "h": {}}
    assert dict(leaves(data)) == {
        ("a", "b"): 1,
        ("a", "c"): [],
        ("d", 0, "e"): 2,
        ("d", 1): "f",
        ("g",): [1, 2],
        ("h",): {},
    }
