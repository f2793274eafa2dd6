"""A file, overrides and a task to a plan: every name, option and combination is checked, all mistakes together."""

import re

import pytest
import yaml
from config_files import DIGITS, JOINT

from ftengine.errors import ConfigError

# --- what comes out ----------------------------------------------------------------------------------------------


def test_a_short_config_becomes_a_whole_plan(plan):
    made = plan()
    (task,) = made.tasks.values()
    assert (task.name, task.field, task.weight, task.stream) == ("classification", "label", 1.0, "data")
    assert [part.component.name for part in (task.head, task.losses[0][0], *task.metrics)] == [
        "linear",
        "cross_entropy",
        "accuracy",
        "f1",
    ]
    assert (made.backbone.component.name, made.weights.kind) == ("resnet18", "none")
    assert made.freeze.component.name == "none"
    assert made.optimizer.torch_name == "AdamW"
    assert not made.joint


def test_the_resolved_config_gives_the_same_plan(plan, tmp_path, monkeypatch):
    text = (
        DIGITS
        + "train: {ema: true, early_stopping: 3}\nmetrics: [{name: top_k, k: 3}, f1]\naugment: [HorizontalFlip]\n"
    )
    first = plan(text, "optimizer={name: sgd, nesterov: true}", "schedule={name: step, gamma: 1e-1}")
    written = yaml.safe_dump(first.resolved())
    monkeypatch.chdir(tmp_path / "..")
    assert plan(written).resolved() == first.resolved()
    joint = plan(JOINT)
    assert plan(yaml.safe_dump(joint.resolved())).resolved() == joint.resolved()


def test_the_defaults_are_those_of_the_target_field_that_the_data_give(plan, csv):
    def parts(columns):
        (task,) = plan(
            f"task: classification\ndata: {{{csv}, {columns}}}\nbackbone: {{name: resnet18, weights: none}}"
        ).tasks.values()
        return task.field, task.losses[0][0].component.name

    assert parts("label: a") == ("label", "cross_entropy")
    assert parts("labels: [a, b]") == ("labels", "binary_cross_entropy")


def test_optimizers_and_schedules_are_found_whatever_the_case(plan):
    made = plan(DIGITS, "optimizer={name: AdamW, lr: 1e-4}", "schedule=Cosine")
    assert made.optimizer.lr == 1e-4
    assert type(made.schedule).__name__ == "Cosine"


def test_tasks_with_equal_data_share_a_stream(plan):
    shared = plan(JOINT)
    assert list(shared.streams) == ["digit"]
    assert {task.stream for task in shared.tasks.values()} == {"digit"}
    assert shared.tasks["amount"].weight == 0.5
    assert shared.joint
    assert list(plan(yaml.safe_dump(shared.resolved(), sort_keys=False)).streams) == ["digit"]


def test_equal_data_written_twice_is_one_stream_and_other_data_another(plan):
    text = """\
backbone: {name: resnet18, weights: none}
tasks:
  a: {task: classification, data: digits}
  b: {task: classification, data: {format: digits, val_fraction: 0.2, root: .}}
  c: {task: classification, data: {format: digits, limit: 100}}
"""
    made = plan(text)
    assert {name: task.stream for name, task in made.tasks.items()} == {"a": "a", "b": "a", "c": "c"}
    assert list(made.streams) == ["a", "c"]


def test_roots_become_absolute(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (part,) = plan(DIGITS, "data.root=somewhere").streams.values()
    assert part.options.root == tmp_path / "somewhere"


# --- --task ------------------------------------------------------------------------------------------------------


def test_the_command_line_supplies_the_task_or_agrees_with_the_file(plan):
    without = DIGITS.replace("task: classification\n", "")
    assert list(plan(without, task="regression").tasks) == ["regression"]
    assert list(plan(DIGITS, task="classification").tasks) == ["classification"]
    options = DIGITS.replace("task: classification", "task: {name: classification, threshold: 0.4}")
    (task,) = plan(options, task="classification").tasks.values()
    assert task.task.options.threshold == 0.4


def test_the_command_line_must_not_contradict_the_file(refused):
    assert refused(DIGITS, task="regression") == [
        (1, "task", "the file says 'classification', but --task says 'regression'")
    ]
    assert refused(JOINT, task="regression") == [
        (3, "tasks", "--task regression names one task, but the file has several under tasks: amount, digit")
    ]


def test_an_unknown_task_of_the_command_line_says_where_it_came_from(plan):
    with pytest.raises(ConfigError) as error:
        plan(DIGITS.replace("task: classification\n", ""), task="regresion")
    assert str(error.value) == (
        "1 problem in the config:\n  --task: task: unknown task 'regresion'; did you mean 'regression'?"
    )


def test_no_task_at_all(refused):
    assert (1, "tsk", "unknown key 'tsk'; did you mean 'task'?") in refused(DIGITS.replace("task:", "tsk:"))
    ((_, path, message),) = refused(DIGITS.replace("task: classification\n", ""))
    assert path == ""
    assert (
        message
        == "no task: give `task` (or `tasks`, or --task); tasks: classification, detection, regression, segmentation"
    )


# --- mistakes ----------------------------------------------------------------------------------------------------


def test_mistakes_of_all_parts_come_together_ordered_by_line(refused):
    text = """\
schedule: cosin
metrics: [acuracy, accuracy, {name: f1, averag: macro}]
augment: [HorizontalFlp]
head: {name: linear, dropuot: 0.1}
freeze: stagse
loss: mse
optimizer: {name: adamw, lr: fast}
task: classification
data: digit
backbone: resnet19
plugins: {require: [acme]}
"""
    found = refused(text)
    assert [(line, path) for line, path, _ in found] == [
        (1, "schedule"),
        (2, "metrics[0]"),
        (2, "metrics[2].averag"),
        (3, "augment[0]"),
        (4, "head.dropuot"),
        (5, "freeze"),
        (6, "loss"),
        (7, "optimizer.lr"),
        (9, "data"),
        (10, "backbone"),
        (11, "plugins.require"),
    ]
    messages = {path: message for _, path, message in found}
    near = {path: match[1] for path, text in messages.items() if (match := re.search(r"did you mean '(\w+)'\?", text))}
    assert near == {
        "schedule": "cosine",
        "metrics[0]": "accuracy",
        "metrics[2].averag": "average",
        "augment[0]": "HorizontalFlip",
        "head.dropuot": "dropout",
        "freeze": "stages",
        "data": "digits",
        "backbone": "resnet18",
    }
    assert messages["loss"].startswith("'mse' is a loss of the task 'regression'; here the task is 'classification'")
    assert messages["optimizer.lr"] == "expected a number; found 'fast'"


def test_a_mistake_in_an_override_names_the_option(plan):
    with pytest.raises(ConfigError) as error:
        plan(DIGITS, "train.epochs=0")
    assert str(error.value) == (
        "1 problem in the config:\n  --set train.epochs=0: train.epochs: expected at least 1; found 0"
    )


@pytest.mark.parametrize(
    ("assignment", "path", "message"),
    [
        ("loss.class_weights=equal", "loss.class_weights", "expected 'balanced' or a list or a mapping; found 'equal'"),
        ("loss.class_weights=[1, -2]", "loss.class_weights[1]", "expected more than 0; found -2"),
        ("optimizer.betas=[0.9]", "optimizer.betas[1]", "required, but not given"),
        ("optimizer.lr=.inf", "optimizer.lr", "expected a finite number; found Infinity"),
        ("metrics=[]", "metrics", "at least one metric is needed"),
        ("backbone.weights=IMAGENET1K_V3", "backbone.weights", "resnet18 has no weights 'IMAGENET1K_V3'; did you mean"),
        ("head=mlpp", "head", "unknown head 'mlpp'; did you mean 'mlp'?"),
        ("freeze=stages", "freeze", "takes exactly one of 'through' and 'only', got neither"),
        ("augment=[HorizontalFlip, {name: HorizontalFlip, p: 2}]", "augment[1].p", "expected a number"),
        ("data.val=x", "data.val", "the digits are one set that comes with scikit-learn"),
    ],
)  # fmt: skip
def test_mistakes_in_options(refused, assignment, path, message):
    text = DIGITS + "loss: cross_entropy\noptimizer: adamw\n"
    ((_, where, said),) = refused(text, assignment)
    assert where == path
    assert said.startswith(message)


def test_data_left_out(refused):
    ((_, path, message),) = refused("task: classification\nbackbone: {name: resnet18, weights: none}")
    assert path == "data"
    assert message.startswith("required, but not given; formats: ")
    found = refused(JOINT.replace("data: {format: digits, targets: [value, ink]}\n", ""))
    assert [path for _, path, _ in found] == ["tasks.digit.data", "tasks.amount.data"]
    assert all(message.startswith("required, but not given here or at the top level; ") for _, _, message in found)


def test_one_task_and_several_do_not_mix(refused):
    found = refused(JOINT + "head: linear\nmetrics: [accuracy]\n")
    message = "belongs to a run with one task; with `tasks`, give it to each of them"
    assert found == [(6, "head", message), (7, "metrics", message)]


def test_a_task_s_name_must_be_usable_in_names_of_values(refused):
    ((line, path, message),) = refused(JOINT.replace("digit:", "my/digit:"))
    assert (line, path) == (4, "tasks.my/digit")
    assert message == "a task's name must be letters, digits and underscores, found 'my/digit'"


def test_tasks_without_any(refused):
    assert refused(DIGITS.replace("task: classification", "tasks: {}")) == [(1, "tasks", "names no task")]


def test_a_disabled_plugin_is_the_reason_that_is_given(refused):
    ((_, path, message),) = refused(DIGITS, "plugins.disable=[torchvision]")
    assert path == "backbone.name"
    assert "the plugin 'torchvision' (ftengine" in message
    assert "is disabled: disabled by the config (plugins.disable)" in message


def test_a_misspelt_key_beside_the_options_gets_the_nearest(refused):
    text = DIGITS.replace("weights:", "wieghts:")
    assert any("unknown key 'wieghts'; did you mean 'weights'?" in problem for _, _, problem in refused(text))


def test_a_missing_backbone_hides_no_other_mistake(refused):
    assert refused("task: clasification\ndata: digts\n") == [
        (1, "task", "unknown task 'clasification'; did you mean 'classification'?"),
        (2, "data", "unknown dataset 'digts'; did you mean 'digits'?"),
        (None, "backbone", "required, but not given"),
    ]
