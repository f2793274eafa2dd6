"""The examples in configs/ hold, and those that need no data learn."""

import json

import pytest
from doc_pages import ROOT

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yaml"))  # those of packages need these: test_example_packages.py


def name(path):
    return str(path.relative_to(ROOT))


def test_there_is_a_config_for_each_task_and_a_joint_one():
    assert {path.parent.name for path in CONFIGS} >= {
        "classification",
        "detection",
        "segmentation",
        "regression",
        "joint",
    }


@pytest.mark.parametrize("file", [*CONFIGS, *EXAMPLES], ids=name)
def test_a_config_has_no_mistakes(file, cli):
    result = cli("config", "check", file)
    assert result.exit_code == 0, result.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "least"),
    [
        ("classification/digits.yaml", {"accuracy": 0.95}),
        ("detection/digits.yaml", {"map_50": 0.5}),
        ("segmentation/digits.yaml", {"mean_iou": 0.6}),
        ("regression/digits.yaml", {"r2": 0.8}),
        ("joint/digits.yaml", {"find/map_50": 0.5, "outline/mean_iou": 0.6}),
        ("joint/digits_label_and_ink.yaml", {"digit/accuracy": 0.95, "ink/r2": 0.8}),
        ("transfer/digits_source.yaml", {"digit/accuracy": 0.9, "ink/r2": 0.7}),
        ("transfer/digits.yaml", {"accuracy": 0.7}),
    ],
)
def test_a_config_that_needs_no_data_learns(file, least, cli, tmp_path):
    result = cli("run", "--config", ROOT / "configs" / file, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]["val"]
    assert {key: metrics[key] for key, value in least.items() if not metrics[key] > value} == {}
