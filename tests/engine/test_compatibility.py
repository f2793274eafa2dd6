"""Parts of a run that must fit each other: data and task, loss and metrics and target, what is monitored."""

import pytest
from config_files import DIGITS, JOINT


def test_a_dataset_that_cannot_feed_the_task(refused, csv):
    ((_, path, message),) = refused(
        f"task: regression\ndata: {{{csv}, label: a}}\nbackbone: {{name: resnet18, weights: none}}"
    )
    assert path == "data"
    assert message == "csv cannot feed regression, which needs `values`; it provides label with these options"


def test_parts_that_do_not_fit_the_target_field(refused):
    found = refused(DIGITS, "loss=binary_cross_entropy", "metrics=[exact_match]")
    messages = {path: message for _, path, message in found}
    assert messages["loss"] == (
        "binary_cross_entropy learns from labels, but the data give `label`; fitting: cross_entropy, focal"
    )
    assert messages["metrics[0]"].startswith(
        "exact_match measures labels, but the data give `label`; fitting: accuracy"
    )


# --- monitor -----------------------------------------------------------------------------------------------------

TOP = ["metrics=[{name: top_k, k: 3}, {name: top_k, k: 2}]", "train.monitor=top2_accuracy"]


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        ([], ("classification", 0, "max", "accuracy")),
        (["train.monitor=loss"], (None, None, "min", "loss")),
        (["metrics=[accuracy, f1]", "train.monitor=f1"], ("classification", 1, "max", "f1")),
        (["metrics=[{name: top_k, k: 3}]"], ("classification", 0, "max", "top3_accuracy")),
        (["metrics=[f1, f1]", "train.monitor=f1"], ("classification", 0, "max", "f1")),
        (TOP, ("classification", 1, "max", "top2_accuracy")),
    ],
)
def test_monitor_of_one_task(plan, assignments, expected):
    monitor = plan(DIGITS, *assignments).monitor
    assert (monitor.task, monitor.metric, monitor.mode, monitor.name) == expected


def test_monitor_of_a_joint_run_names_the_task(plan, refused):
    monitor = plan(JOINT, "train.monitor=amount/mae").monitor
    assert (monitor.task, monitor.mode, monitor.name) == ("amount", "min", "amount/mae")
    assert plan(JOINT).monitor.task == "digit"
    ((_, path, message),) = refused(JOINT, "train.monitor=mae")
    assert path == "train.monitor"
    assert message.startswith("unknown metric 'mae'; ")


def test_a_monitor_that_is_not_measured_is_refused(refused):
    ((_, path, message),) = refused(DIGITS, "metrics=[accuracy]", "train.monitor=f1")
    assert (path, message) == ("train.monitor", "unknown metric 'f1'; known: accuracy, loss")


def test_the_same_metric_twice_keeps_both_in_order(plan):
    (task,) = plan(DIGITS, "metrics=[{name: top_k, k: 2}, accuracy, {name: top_k, k: 3}]").tasks.values()
    assert [metric.primary for metric in task.metrics] == ["top2_accuracy", "accuracy", "top3_accuracy"]
