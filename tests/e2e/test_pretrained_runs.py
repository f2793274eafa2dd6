"""Where the first weights come from: exactly the file's, or a refusal that says what does not fit."""

import urllib.error

import pytest
import safetensors.torch
import torch

KEEP = {"optimizer": {"name": "sgd", "lr": 1e-30}, "freeze": "all", "train": {"epochs": 1}}
"""A run that ends with the weights it began with."""


def backbone(tensors):
    prefix = "backbone.stages."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def source(runs):
    return runs({"train": {"seed": 5}})


def same(run, tensors):
    ours = backbone(run.tensors())
    return ours.keys() == tensors.keys() and all(torch.equal(ours[name], tensors[name]) for name in ours)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "run", "nested and prefixed"])
def test_weights_are_exactly_those_of_the_source(source, runs, tmp_path, kind):
    tensors = backbone(source.tensors("best"))
    if kind == "run":
        weights = f"run:{source.directory}"
    elif kind == "safetensors":
        weights = str(tmp_path / "w.safetensors")
        safetensors.torch.save_file(tensors, weights)
    else:
        weights = str(tmp_path / "w.pth")
        nested = {"state_dict": {f"module.{name}": value for name, value in tensors.items()}, "epoch": 3}
        torch.save(tensors if kind == "pth" else nested, weights)
    run = runs({**KEEP, "backbone": {"weights": weights}})
    assert same(run, tensors)
    assert "c1: 7 of 7 tensors" in run.result.stdout
    assert not same(runs(KEEP), tensors), "random weights are others"


def test_weights_of_another_backbone_are_refused_with_a_report(source, runs):
    refused = runs({"backbone": {"weights": f"run:{source.directory}", "width": 4}}, exit_code=1)
    text = refused.result.stderr
    assert "backbone.weights: the weights do not fit the backbone" in text
    assert "of another shape: 18" in text
    assert "c1.0.bias ([8] in the file, [4] in the backbone)" in text
    assert not refused.directory.exists()


def test_missing_and_unexpected_tensors_are_listed_and_can_be_allowed(source, runs, tmp_path):
    tensors = backbone(source.tensors())
    tensors["fc.weight"] = torch.zeros(3)
    del tensors["c3.0.bias"]
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file(tensors, file)
    text = runs({"backbone": {"weights": str(file)}}, exit_code=1).result.stderr
    assert "missing in the file: 1 (c3.0.bias)" in text
    assert "unexpected in the file: 1 (fc.weight)" in text
    assert "list globs for them under backbone.weights.allow" in text
    weights = {"source": str(file), "allow": ["fc.*", "c3.0.bias"]}
    run = runs({**KEEP, "backbone": {"weights": weights}})
    assert "allowed differences: 2" in run.result.stdout
    assert torch.equal(backbone(run.tensors())["c1.0.weight"], tensors["c1.0.weight"])


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_that_holds_no_weights(runs, tmp_path, suffix):
    file = tmp_path / f"w{suffix}"
    file.write_bytes(b"junk" * 100)
    text = runs({"backbone": {"weights": str(file)}}, exit_code=1).result.stderr
    assert f"Error: {file} cannot be read as weights: " in text


def test_a_pickle_is_not_run(runs, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    file = tmp_path / "w.pth"
    torch.save({"c1.0.weight": torch.zeros(1), "x": Payload()}, file)
    text = runs({"backbone": {"weights": str(file)}}, exit_code=1).result.stderr
    assert f"{file} holds more than tensors, or is damaged, and is not read" in text
    assert not (tmp_path / "owned").exists()


def test_values_that_are_not_finite_are_refused(source, runs, tmp_path):
    tensors = backbone(source.tensors())
    tensors["c2.0.weight"][0, 0, 0, 0] = float("nan")
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file(tensors, file)
    text = runs({"backbone": {"weights": str(file)}}, exit_code=1).result.stderr
    assert "holds values that are not finite: c2.0.weight" in text


@pytest.fixture
def published(monkeypatch, tmp_path):
    """An empty torch home, and no network. Returns where the published weights would lie."""

    def refuse(url, *_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "home" / "hub" / "checkpoints" / "mobilenet_v3_small-047dcff4.pth"


MOBILENET = {"backbone": {"name": "mobilenet_v3_small", "weights": "default"}, "image": {"size": 32}}


def test_published_weights_without_a_network(runs, published):
    refused = runs(MOBILENET, exit_code=1)
    text = refused.result.stderr
    assert f"looked for {published}" in text
    assert "https://download.pytorch.org/models/mobilenet_v3_small-047dcff4.pth" in text
    assert "put the file there, or name a file of your own in backbone.weights, or say `none`" in text
    assert "no network" in text
    assert not refused.directory.exists(), "never a silent start from random weights"


def test_published_weights_from_the_cache(runs, published):
    """A file of torchvision's layout, under the name that torch hub would give it."""
    from torchvision.models import mobilenet_v3_small

    torch.manual_seed(7)
    model = mobilenet_v3_small()
    published.parent.mkdir(parents=True)
    torch.save(model.state_dict(), published)
    run = runs({**MOBILENET, **KEEP})
    ours = {value.numpy().tobytes() for value in backbone(run.tensors()).values() if value.dim() == 4}
    theirs = {value.numpy().tobytes() for name, value in model.state_dict().items() if value.dim() == 4}
    assert ours == theirs
    assert "missing" not in run.result.stdout


PLUGIN = """
from ftengine.plugin import BackboneSpec, hookimpl

FTENGINE_API = (1, 0)

@hookimpl
def register_backbones():
    yield BackboneSpec(
        name="net", factory="shaped_plugin:make", summary="A network whose weights were published in two widths.",
        levels=("c1",), weights=("NARROW", "WIDE"), default_weights="NARROW",
    )

def make(options, context):
    from torch import nn
    from ftengine.protocols import Backbone
    width = 16 if context.weights == "WIDE" else 8
    stage = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU())
    return Backbone({"c1": stage}, {"c1": width}, {"c1": 2}, url="https://example.org/wide.safetensors")
"""


def test_a_network_that_its_published_weights_shaped_is_rebuilt_without_them(runs, cli, published, install_plugin):
    install_plugin("shaped", PLUGIN)
    file = published.with_name("wide.safetensors")
    file.parent.mkdir(parents=True)
    tensors = {"c1.0.weight": torch.randn(16, 3, 3, 3), "c1.0.bias": torch.zeros(16)}
    safetensors.torch.save_file(tensors, file)
    run = runs({"backbone": {"name": "shaped/net", "weights": "WIDE"}})
    file.unlink()
    for command in (("evaluate", run.directory), ("run", "--resume", run.directory)):
        result = cli(*command)
        assert result.exit_code == 0, result.output


def test_a_finished_run_does_not_need_the_file_it_started_from(source, runs, cli, tmp_path):
    file = tmp_path / "start.safetensors"
    safetensors.torch.save_file(backbone(source.tensors()), file)
    run = runs({"backbone": {"weights": str(file)}})
    file.unlink()
    assert cli("evaluate", run.directory).exit_code == 0
