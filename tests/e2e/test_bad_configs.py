"""What a user sees when a config is wrong: every mistake, with its line and the nearest name."""

import os
import subprocess
import sys

import pytest

HEAD = "task: classification\ndata: {format: digits, limit: 64}\nbackbone: {name: acme/tiny, weights: none}\n"


@pytest.fixture
def refused(cli, third_party, tmp_path):
    """Runs a config given as text, expects exit code 2; returns what stderr says."""

    def run(text, *arguments):
        file = tmp_path / "c.yaml"
        file.write_text(text)
        result = cli("run", "--config", file, "--output", tmp_path / "run", *arguments)
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "run").exists()
        return result.stderr

    return run


def test_unknown_names_and_keys_are_reported_together_with_lines_and_nearest_names(refused):
    text = refused(
        "task: classification\n"
        "data: {format: digits, limt: 64}\n"
        "backbone: {name: acme/tyni, weights: none}\n"
        "head: {name: linaer}\n"
        "loss: {name: cross_entropy, label_smothing: 0.1}\n"
        "metrics:\n  - accuracy\n  - acuracy\n"
        "freeze: al\n"
        "optimizer: adamv\n"
        "schedule: cosin\n"
        "augment: [{name: HorizontlFlip}]\n"
    )
    expected = {
        "2: data.limt: unknown key 'limt'; did you mean 'limit'?",
        "3: backbone.name: unknown backbone 'acme/tyni'; did you mean 'acme/tiny'?",
        "4: head.name: unknown head 'linaer'; did you mean 'linear'?",
        "5: loss.label_smothing: unknown key 'label_smothing'; did you mean 'label_smoothing'?",
        "8: metrics[1]: unknown metric 'acuracy'; did you mean 'accuracy'?",
        "9: freeze: unknown freeze policy 'al'; did you mean 'all'?",
        "10: optimizer: unknown optimizer 'adamv'; did you mean 'adam'?",
        "11: schedule: unknown schedule 'cosin'; did you mean 'cosine'?",
        "12: augment[0]: unknown augmentation 'HorizontlFlip'; did you mean 'HorizontalFlip'?",
    }
    assert {line.partition("c.yaml:")[2] for line in text.splitlines()[1:]} == expected
    assert "9 problems" in text


def test_unknown_keys_do_not_hide_unknown_names(refused):
    text = refused(HEAD + "optimzer: adamw\nhead: linaer\ntrain: {epoch: 3, batch_size: many}\n")
    assert "c.yaml:4: optimzer: unknown key 'optimzer'; did you mean 'optimizer'?" in text
    assert "c.yaml:5: head: unknown head 'linaer'; did you mean 'linear'?" in text
    assert "c.yaml:6: train.epoch: unknown key 'epoch'; did you mean 'epochs'?" in text
    assert "c.yaml:6: train.batch_size: expected 'auto' or a whole number; found 'many'" in text
    assert "4 problems" in text


def test_a_value_of_the_wrong_type_brings_no_problem_that_is_not_there(refused):
    text = refused(HEAD.replace("classification", "5") + "trian: {epochs: 2}\n")
    assert "2 problems" in text
    assert "c.yaml:1: task:" in text
    assert "did you mean 'train'?" in text


def test_component_of_another_task_or_kind(refused):
    text = refused(HEAD + "head: focal\nloss: mse\nmetrics: [mae]\n")
    assert "c.yaml:4: head: 'focal' is a loss, not a head; heads: acme/prototypes, linear, mlp" in text
    assert "c.yaml:5: loss: 'mse' is a loss of the task 'regression'; here the task is 'classification'" in text
    assert "c.yaml:6: metrics[0]: 'mae' is a metric of the task 'regression'" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [a\nb: }", "c.yaml:2: (top level): is not valid YAML"),
        ("- a\n- b\n", "c.yaml: (top level): expected a mapping of names to values, found a list"),
        ("task: classification\ntask: regression\n", "c.yaml:2: task: given twice, first on line 1"),
        ("", "c.yaml: backbone: required, but not given"),
        (HEAD.replace("task: classification\n", ""), "no task: give `task` (or `tasks`, or --task)"),
        (HEAD.replace("format: digits", "format: digts"), "c.yaml:2: data.format: unknown dataset 'digts'"),
        (
            HEAD + "image: {size: big}\n",
            "c.yaml:4: image.size: expected one number for both sides, or a list of height and width; found 'big'",
        ),
        (HEAD + "train: {batch_size: 16, accumulate: 3}\n", "accumulate 3 does not divide batch_size 16"),
        (HEAD + "train: {monitor: acuracy}\n", "train.monitor: unknown metric 'acuracy'; did you mean 'accuracy'?"),
        (HEAD.replace("none", "w.safetensors"), "c.yaml:3: backbone.weights: no such file: "),
        (HEAD.replace("none", "run:nowhere"), "is not a run directory"),
        (HEAD.replace("none", "default"), "acme/tiny has no published weights"),
        (HEAD.replace("acme/tiny", "resnet18").replace("none", "IMAGENET1K_V9"), "did you mean 'IMAGENET1K_V1'?"),
        (HEAD.replace("digits", "digits, val: here"), "c.yaml:2: data.val: the digits are one set"),
        (HEAD + "plugins: {require: [acmee]}\n", "unknown plugin 'acmee'; did you mean 'acme'? (not installed)"),
        (
            HEAD + "plugins: {disable: [acme]}\n",
            "the plugin 'acme' (acme-vision 2.3.0) is disabled: disabled by the config",
        ),
    ],
    ids=lambda value: value[-30:],
)
def test_refused_with_a_reason(refused, text, message):
    assert message in refused(text)


def test_missing_config_file(cli, tmp_path):
    (tmp_path / "digits.yaml").write_text("")
    result = cli("run", "--config", tmp_path / "digit.yaml")
    assert result.exit_code == 2
    assert f"no such file in {tmp_path}; did you mean 'digits.yaml'?" in result.stderr


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.epoch=3", "--set train.epoch=3: train.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
        ("train.epochs=many", "--set train.epochs=many: train.epochs: expected a whole number; found 'many'"),
        ("train.epochs=0", "train.epochs: expected at least 1; found 0"),
        ("train.epochs", "expected key.path=value, got 'train.epochs'"),
        ("train.epochs=3 4", "train.epochs: expected a whole number; found '3 4'"),
        ("head.dropuot=0.1", "head.dropuot: unknown key 'dropuot'; did you mean 'dropout'?"),
        ("train.seed=[", "the value '[' is not valid YAML"),
    ],
)
def test_bad_assignments(refused, assignment, message):
    assert message in refused(HEAD + "head: linear\n", "--set", assignment)


def test_task_option_against_the_file(refused):
    assert "c.yaml:1: task: the file says 'classification', but --task says 'regression'" in refused(
        HEAD, "--task", "regression"
    )
    joint = HEAD.replace("task: classification", "tasks: {kind: {task: classification}}")
    assert "--task classification names one task, but the file has several" in refused(
        joint, "--task", "classification"
    )
    nameless = HEAD.replace("task: classification\n", "")
    assert "--task: task: unknown task 'regresion'; did you mean 'regression'?" in refused(
        nameless, "--task", "regresion"
    )


PLUGIN = """
from ftengine.plugin import BackboneSpec, hookimpl
FTENGINE_API = {api}
{body}
"""


@pytest.mark.parametrize(
    ("api", "body", "message"),
    [
        ("(1, 0)", "raise OSError('no such device')", "is broken: OSError: no such device"),
        ("(2, 0)", "", "is incompatible"),
        ("(1, 0)", "@hookimpl\ndef register_backbone():\n    return []\n", "register_backbones"),
    ],
    ids=["broken", "incompatible", "misspelt hook"],
)
def test_a_plugin_that_cannot_be_used(refused, install_plugin, api, body, message):
    install_plugin("faulty", PLUGIN.format(api=api, body=body))
    text = refused(HEAD.replace("acme/tiny", "faulty/net"))
    assert "c.yaml:3: backbone.name: unknown backbone 'faulty/net': the plugin 'faulty' (faulty-dist 1.0)" in text
    assert message in text


def test_a_broken_plugin_that_no_config_names_breaks_nothing(runs, install_plugin):
    install_plugin("faulty", PLUGIN.format(api="(1, 0)", body="raise OSError('no such device')"))
    assert runs({"train": {"epochs": 1}}).summary["epochs"] == 1


def test_refused_before_torch_is_imported(tmp_path, third_party_site):
    file = tmp_path / "c.yaml"
    file.write_text(HEAD + "head: linaer\n")
    code = f"import sys; sys.argv = ['ftengine', 'run', '--config', {str(file)!r}]\n"
    (tmp_path / "probe.py").write_text(
        code + "from ftengine.cli import main\ntry:\n    main()\nfinally:\n    print('torch' in sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(third_party_site)}
    result = subprocess.run([sys.executable, tmp_path / "probe.py"], capture_output=True, text=True, env=environment)
    assert result.returncode == 2
    assert "unknown head 'linaer'" in result.stderr
    assert result.stdout.strip() == "False"
