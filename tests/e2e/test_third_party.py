"""A third-party distribution adds a component of five kinds, and a config names them; the engine is as it is."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ACME = Path(__file__).parents[1] / "thirdparty" / "acme"

CONFIG = {
    "backbone": {"name": "acme/tiny", "weights": "none", "width": 4},
    "head": {"name": "acme/prototypes", "scale": 10.0},
    "loss": "acme/margin",
    "metrics": ["acme/error_rate", "accuracy"],
    "freeze": {"name": "acme/first_epochs", "epochs": 1},
    "train": {"epochs": 3},
}


@pytest.fixture(scope="module")
def finished(runs):
    return runs(CONFIG)


def test_all_five_are_used(finished):
    assert finished.summary["primary"] == "error_rate"
    values = finished.lines("val")[-1]
    assert values["error_rate"] == pytest.approx(1 - values["accuracy"])
    assert all(line["loss"] == line["loss/margin"] for line in finished.lines("train"))
    tensors = finished.tensors()
    assert tensors["backbone.stages.c1.0.weight"].shape == (4, 3, 3, 3)
    assert tensors["heads.classification.prototypes"].shape == (10, 16)


def test_the_metric_is_better_when_smaller(finished):
    errors = [line["error_rate"] for line in finished.lines("val")[1:]]
    assert finished.summary["metrics"]["val"]["error_rate"] == min(errors)


def test_the_policy_sees_the_progress(finished, runs):
    frozen = runs({**CONFIG, "train": {"epochs": 1}}).tensors()
    start = runs({**CONFIG, "train": {"epochs": 1}, "optimizer": {"lr": 1e-30, "weight_decay": 0}}).tensors()
    trained = finished.tensors()
    for name in (name for name in frozen if name.startswith("backbone.")):
        assert torch.equal(frozen[name], start[name]), name
    assert not torch.equal(trained["backbone.stages.c1.0.weight"], frozen["backbone.stages.c1.0.weight"])
    assert "stages from epoch 2" in finished.result.stdout


def test_the_resolved_config_tells_the_version(finished):
    assert finished.resolved["provenance"]["plugins"]["acme (acme-vision)"] == "2.3.0"


def test_evaluate_and_predict(finished, cli, write_image, tmp_path):
    result = cli("evaluate", finished.directory)
    assert result.exit_code == 0, result.output
    measured = json.loads((finished.directory / "evaluation-val.json").read_text())
    assert measured["metrics"] == finished.summary["metrics"]["val"]
    result = cli("predict", finished.directory, write_image(tmp_path / "a.png"))
    assert result.stdout.startswith("image,label,score,p(0)")


def test_listed_with_its_options(third_party, cli):
    listed = json.loads(cli("plugins", "--json").stdout)
    assert {item["name"] for item in listed["components"] if item["name"].startswith("acme/")} == {
        "acme/tiny",
        "acme/prototypes",
        "acme/margin",
        "acme/error_rate",
        "acme/first_epochs",
    }
    assert "Factor of the cosines" in cli("plugins", "show", "acme/prototypes").stdout


def test_without_the_package_the_config_says_what_is_missing(config_file, cli_process, tmp_path):
    result = cli_process("run", "--config", config_file(CONFIG), "--output", tmp_path / "run")
    assert result.returncode == 2
    assert "acme" in result.stderr
    assert "not installed" in result.stderr


@pytest.mark.slow
def test_installed_by_an_installer(config_file, cli_process, tmp_path):
    """The real thing: build the package, install its wheel, run in a new process."""
    source = shutil.copytree(ACME, tmp_path / "acme")
    site = tmp_path / "site"
    if uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--python", sys.executable, "--target", site, "--no-deps", source]
    else:
        command = [sys.executable, "-m", "pip", "install", "--target", site, "--no-deps", source]
    subprocess.run(command, check=True, capture_output=True)
    output = tmp_path / "run"
    result = cli_process("run", "--config", config_file(CONFIG), "--output", output, path=[site])
    assert result.returncode == 0, result.stderr
    assert json.loads((output / "summary.json").read_text())["primary"] == "error_rate"


LOSS = """
from ftengine.plugin import *

FTENGINE_API = (1, 0)

@hookimpl
def register_losses():
    yield LossSpec(name="loose", factory="loose_plugin:make", summary="S.", task="classification", fields=("label",))

def make(options, context):
    from ftengine.protocols import Loss
    class Loose(Loss):
        def forward(self, output, batch):
            each = output["logits"].float().square()
            return {given}
    return Loose()
"""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("each.mean()", "gave a tensor of shape []; expected a dict of named scalar tensors"),
        ("{'x': each.mean(), 'y': each[:, 0]}", "gave a tensor of shape [8] as 'y'; expected a scalar tensor"),
        ("{'x': 0.5}", "gave a float as 'x'; expected a scalar tensor"),
        ("{}", "gave no term; expected at least one"),
    ],
)
def test_what_is_no_loss_is_told_by_the_name_of_who_gave_it(given, message, runs, install_plugin):
    install_plugin("loose", LOSS.replace("{given}", given))
    failed = runs({"loss": "loose/loose", "train": {"batch_size": 8}}, exit_code=1)
    assert f"the loss 'loose/loose' (plugin loose) {message}" in failed.result.stderr


METRIC = """
from ftengine.plugin import *

FTENGINE_API = (1, 0)

@hookimpl
def register_metrics():
    yield MetricSpec(name="loose", factory="loose_plugin:make", summary="S.", task="classification", primary="kapa")

def make(options, context):
    from ftengine.protocols import Metric
    class Loose(Metric):
        def reset(self): pass
        def update(self, predictions, targets): pass
        def compute(self): return {"kappa": 0.5}
        def merge(self, other): pass
    return Loose()
"""


def test_a_metric_that_does_not_give_what_its_spec_promises_is_named(runs, install_plugin):
    install_plugin("loose", METRIC)
    failed = runs({"metrics": ["loose/loose"]}, exit_code=1)
    message = (
        "the metric 'loose/loose' (plugin loose) was to give what its spec promises: unknown value 'kapa'; did you"
    )
    assert f"{message} mean 'kappa'?" in failed.result.stderr
