"""What a plan says of itself."""

import yaml

from ftengine.config import Config

SINGLE = """\
task: {name: classification, threshold: 0.4}
data: {format: digits, limit: 100}
backbone: {name: resnet18, weights: {source: none, allow: [fc.*]}}
head: {name: mlp, hidden: [8]}
metrics: [{name: top_k, k: 3}, accuracy]
image: {size: [16, 24]}
train: {ema: 0.9, early_stopping: 2}
checkpoint: {keep: 3}
"""


def test_a_resolved_config_holds_every_value_as_plain_data(plan):
    made = plan(SINGLE)
    resolved = made.resolved()
    assert yaml.safe_load(yaml.safe_dump(resolved)) == resolved
    assert resolved["task"] == {"name": "classification", "threshold": 0.4}
    assert resolved["data"]["format"] == "digits"
    assert resolved["data"]["val_fraction"] == 0.2
    assert resolved["backbone"]["weights"] == {"source": "none", "allow": ["fc.*"]}
    assert next(iter(resolved["backbone"])) == "name"
    assert resolved["head"]["hidden"] == [8]
    assert resolved["loss"]["name"] == "cross_entropy"
    assert [metric["name"] for metric in resolved["metrics"]] == ["top_k", "accuracy"]
    assert resolved["freeze"] == {"name": "none", "frozen_norm": "eval", "warmup_epochs": 0.0}
    assert resolved["image"]["size"] == [16, 24]
    assert resolved["optimizer"]["name"] == "adamw"
    assert resolved["optimizer"]["betas"] == [0.9, 0.999]
    assert resolved["schedule"] == {
        "name": "cosine",
        "warmup_epochs": 0.0,
        "warmup_start": 0.01,
        "per": "step",
        "final": 0.0,
        "restart_epochs": None,
        "restart_mult": 1,
    }
    assert resolved["train"]["ema"] == {"decay": 0.9, "warmup": True}
    assert resolved["train"]["early_stopping"] == {"patience": 2, "min_delta": 0.0}
    assert resolved["checkpoint"]["keep"] == 3
    assert resolved["checkpoint"]["background"] is True
    assert resolved.keys() >= Config.model_fields.keys() - {"tasks", "strategy", "provenance"}
    assert "tasks" not in resolved


def test_a_joint_run_keeps_its_tasks_each_with_its_data_and_weight(plan):
    made = plan(
        "data: digits\nbackbone: {name: resnet18, weights: none}\n"
        "tasks: {digit: {task: classification}, amount: {task: regression, weight: 0.5}}\n"
    )
    resolved = made.resolved()
    assert "task" not in resolved
    assert "data" not in resolved
    assert list(resolved["tasks"]) == ["digit", "amount"]
    assert resolved["tasks"]["amount"]["weight"] == 0.5
    assert resolved["tasks"]["amount"]["data"] == resolved["tasks"]["digit"]["data"]


def test_a_metric_s_key_has_its_options_filled_in(plan):
    (task,) = plan(SINGLE).tasks.values()
    assert [metric.primary for metric in task.metrics] == ["top3_accuracy", "accuracy"]
