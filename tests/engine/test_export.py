"""A run's model as one file: its tensors and names, its header, and what is refused."""

import json

import pytest
import safetensors
import torch
import torchvision
import yaml
from safetensors.torch import load_file, save_file
from tiny import TinyBackbone

from ftengine.checkpoint import Snapshot, Store
from ftengine.errors import WeightsError
from ftengine.export import open_merged
from ftengine.weight_source import WeightSource
from ftengine.weights import load_weights

CONFIG = {
    "task": "classification",
    "data": {"format": "digits", "limit": 48, "val_fraction": 0.5},
    "image": {"size": 32, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
    "backbone": {"name": "resnet18", "weights": "none"},
    "train": {"epochs": 1, "batch_size": 12, "precision": "fp32", "workers": 0},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, cli):
    """A run of two steps, with a best checkpoint that is not its last."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    result = cli("run", "--config", folder / "config.yaml", "--output", folder / "run")
    assert result.exit_code == 0, result.output
    store = Store(folder / "run")
    last = store.load(store.find("last"), for_training=False)
    other = {name: tensor + 1 if "conv1" in name else tensor for name, tensor in last.model.items()}
    store.point("best", store.write("step-00000001", Snapshot(other, {}, {}, last.state)))
    return folder / "run"


def checkpoint(run, pointer):
    name = json.loads((run / "checkpoints" / f"{pointer}.json").read_text())["checkpoint"]
    return load_file(run / "checkpoints" / name / "model.safetensors")


def header(file):
    with safetensors.safe_open(file, "pt") as content:
        return content.metadata()


@pytest.fixture(scope="module")
def published(run, cli):
    file = run.parent / "published.safetensors"
    result = cli("export", run, file)
    assert result.exit_code == 0, result.output
    assert f"written to {file}: 120 tensors of the backbone by their published names, 2 of the heads" in result.stdout
    return file


def test_torchvision_loads_the_backbone(run, published):
    tensors = load_file(published)
    model = torchvision.models.resnet18()
    result = model.load_state_dict(tensors, strict=False)
    assert set(result.missing_keys) == {"fc.weight", "fc.bias"}
    head = {name.replace("heads.", "") for name in checkpoint(run, "best") if name.startswith("heads.")}
    assert set(result.unexpected_keys) == {f"heads.{name}" for name in head}
    assert all(name.startswith("classification.") for name in head)
    saved = checkpoint(run, "best")
    assert torch.equal(model.conv1.weight, saved["backbone.stages.c1.0.weight"])
    assert torch.equal(model.layer4[1].bn2.running_var, saved["backbone.stages.c5.1.bn2.running_var"])


def test_ftengine_s_names_are_the_checkpoint_s(run, cli, tmp_path):
    result = cli("export", run, tmp_path / "new" / "w.safetensors", "--names", "ftengine")
    assert result.exit_code == 0, result.output
    tensors, saved = load_file(tmp_path / "new" / "w.safetensors"), checkpoint(run, "best")
    assert tensors.keys() == saved.keys()
    assert all(torch.equal(tensors[name], saved[name]) for name in saved)
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["w.safetensors"], "nothing half-written stays"


def test_the_header_says_what_was_trained(run, published):
    content = header(published)
    assert content["format"] == "pt"
    assert content["checkpoint"].startswith("step-")
    assert json.loads(content["backbone"])["name"] == "resnet18"
    assert json.loads(content["image"])["size"] == [32, 32]
    assert (json.loads(content["mean"]), json.loads(content["std"])) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    task = json.loads(content["tasks"])["classification"]
    assert (task["task"], task["head"]["name"]) == ("classification", "linear")
    assert task["state"]["names"] == [str(digit) for digit in range(10)]
    assert set(json.loads(content["others"])) == {name for name in load_file(published) if name.startswith("heads.")}


@pytest.mark.parametrize("which", ["best", "last"])
def test_either_checkpoint(run, cli, tmp_path, which):
    result = cli("export", run, tmp_path / "w.safetensors", "--checkpoint", which, "--names", "ftengine")
    tensors, saved = load_file(tmp_path / "w.safetensors"), checkpoint(run, which)
    assert all(torch.equal(tensors[name], saved[name]) for name in saved)
    name = {"best": "step-00000001", "last": "step-00000002"}[which]
    assert f"from {name}" in result.stdout
    assert header(tmp_path / "w.safetensors")["checkpoint"] == name


def test_another_run_starts_from_it(run, cli, published, tmp_path):
    config = {**CONFIG, "image": {"size": 32}}
    for names in ("published", "ftengine"):
        file = tmp_path / f"{names}.safetensors"
        assert cli("export", run, file, "--names", names).exit_code == 0
        config["backbone"] = {"name": "resnet18", "weights": str(file)}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        result = cli("config", "check", tmp_path / "config.yaml", "--build")
        assert result.exit_code == 0, result.output


# --- a file as weights -------------------------------------------------------------------------------------------


def exported(file, **changes):
    """A file as `ftengine export` writes it, of a tiny backbone with other weights and a head."""
    torch.manual_seed(1)
    tensors = {**TinyBackbone().stages.state_dict(), "heads.a.fc.weight": torch.zeros(2, 6)}
    content = {
        "ftengine": "1.0",
        "mean": "[0.1, 0.2, 0.3]",
        "std": "[0.4, 0.5, 0.6]",
        "others": '["heads.a.fc.weight"]',
        **changes,
    }
    save_file(tensors, file, {key: value for key, value in content.items() if value is not None})
    return tensors, WeightSource("file", str(file))


def test_its_heads_are_not_missed_and_its_mean_and_deviation_count(tmp_path):
    backbone = TinyBackbone()
    tensors, source = exported(tmp_path / "w.safetensors")
    coverage = load_weights(backbone, source)
    assert coverage.discarded == ["heads.a.fc.weight"]
    assert (coverage.missing, coverage.unexpected) == ([], [])
    assert (backbone.mean, backbone.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    own = backbone.stages.state_dict()
    assert all(torch.equal(own[name], tensors[name]) for name in own)


def test_a_head_in_a_file_that_says_nothing_of_it_is_unexpected(tmp_path):
    backbone = TinyBackbone()
    _, source = exported(tmp_path / "w.safetensors", ftengine=None)
    with pytest.raises(WeightsError, match=r"unexpected in the file: 1 \(heads\.a\.fc\.weight\)"):
        load_weights(backbone, source)
    assert backbone.mean == TinyBackbone().mean


@pytest.mark.parametrize("changes", [{"mean": None}, {"std": "[1,"}, {"mean": '["x", 1, 2]'}, {"others": "1"}], ids=str)
def test_a_damaged_header_is_named(tmp_path, changes):
    _, source = exported(tmp_path / "w.safetensors", **changes)
    with pytest.raises(WeightsError, match=r"w\.safetensors: what ftengine says in its header is damaged"):
        load_weights(TinyBackbone(), source)


# --- refusals ----------------------------------------------------------------------------------------------------


def test_an_existing_file_is_not_written_over(run, cli, tmp_path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"mine")
    result = cli("export", run, file)
    assert result.exit_code == 1
    assert f"Error: {file}: exists, and is not written over; give another name, or remove it" in result.stderr
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["w.pth", "w", "w.safetensor"])
def test_another_suffix(run, cli, tmp_path, name):
    result = cli("export", run, tmp_path / name)
    assert result.exit_code == 2
    assert f"{name}: expected a name that ends in .safetensors" in " ".join(result.stderr.split())


def test_what_is_no_run(cli, tmp_path):
    result = cli("export", tmp_path / "none", tmp_path / "w.safetensors")
    assert result.exit_code == 1
    assert "is not a run directory: it has no resolved.yaml" in result.stderr
    assert not (tmp_path / "w.safetensors").exists()


def test_a_run_without_a_checkpoint(run, cli, tmp_path):
    (tmp_path / "resolved.yaml").write_text((run / "resolved.yaml").read_text())
    for which, words in (("best", "has no checkpoint: expected"), ("last", "has no last checkpoint")):
        result = cli("export", tmp_path, tmp_path / "w.safetensors", "--checkpoint", which)
        assert result.exit_code == 1
        assert words in result.stderr


def test_a_head_s_name_that_published_files_have_too(run, cli, tmp_path, monkeypatch):
    def opened(*arguments):
        merged = open_merged(*arguments)
        merged.model.backbone.discarded = ("heads.classification.classifier.1.bias",)
        return merged

    monkeypatch.setattr("ftengine.export.open_merged", opened)
    result = cli("export", run, tmp_path / "w.safetensors")
    assert result.exit_code == 1
    assert "published files have tensors of these names, too: heads.classification.classifier.1.bias" in result.stderr
    assert cli("export", run, tmp_path / "w.safetensors", "--names", "ftengine").exit_code == 0
