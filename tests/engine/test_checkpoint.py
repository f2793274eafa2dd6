"""Checkpoints: whole or not there, verified, and never a pickle."""

import json
import shutil

import pytest
import torch
from tiny import make_model

from ftengine.checkpoint import Snapshot, Store, best_or_last, load_model
from ftengine.errors import CheckpointError


def save(store, step, best=False, value=None, training=None):
    tensors = {"w": torch.full((3,), float(step if value is None else value))}
    return store.save(step, Snapshot(tensors, training or {}, {"w/m": torch.zeros(2)}, {"step": step}), best=best)


def entries(store):
    return sorted(entry.name for entry in store.folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path):
    store = Store(tmp_path)
    tensors = {
        "scalar": torch.tensor(3.5),
        "count": torch.tensor(7),
        "transposed": torch.arange(6.0).view(2, 3).T,
        "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "view": torch.arange(10)[::2],
        "half": torch.randn(3).bfloat16(),
        "flag": torch.tensor([True, False]),
        "empty": torch.empty(0, 4),
        "tied": torch.ones(2),
    }
    tensors["tied_too"] = tensors["tied"]
    state = {"step": 12, "nested": {"a": [1, None, "x"]}}
    snapshot = Snapshot(tensors, {"w": torch.ones(2)}, {"w/m": torch.zeros(())}, state)
    path = store.save(12, snapshot, best=True)
    assert path == tmp_path / "checkpoints" / "step-00000012"
    loaded = store.load(path, for_training=True)
    assert loaded.model.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded.model[name].dtype == tensor.dtype
        assert loaded.model[name].shape == tensor.shape
        assert torch.equal(loaded.model[name], tensor)
    assert (loaded.state, loaded.path) == (state, path)
    assert torch.equal(loaded.training["w"], torch.ones(2))
    assert loaded.optimizer["w/m"].shape == ()
    light = store.load(path, for_training=False)
    assert (light.training, light.optimizer) == ({}, {})


def test_files_and_their_manifest(tmp_path):
    store = Store(tmp_path)
    plain = save(store, 1)
    assert sorted(file.name for file in plain.iterdir()) == [
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    manifest = json.loads((plain / "manifest.json").read_text())["sha256"]
    assert set(manifest) == {"model.safetensors", "optimizer.safetensors", "state.json"}
    averaged = save(store, 2, training={"w": torch.ones(3)})
    assert (averaged / "training.safetensors").is_file()


def test_pointers_and_pruning_keep_the_last_and_the_best(tmp_path):
    store = Store(tmp_path)
    assert store.find("last") is None
    save(store, 1)
    assert (store.find("last").name, store.find("best")) == ("step-00000001", None)
    assert best_or_last(tmp_path).name == "step-00000001"
    save(store, 2, best=True)
    save(store, 3)
    save(store, 4)
    assert entries(store) == ["best.json", "last.json", "step-00000002", "step-00000004"]
    assert store.find("last").name == "step-00000004"
    assert best_or_last(tmp_path).name == "step-00000002"
    save(store, 5, best=True)
    assert entries(store) == ["best.json", "last.json", "step-00000005"]


def test_a_step_saved_again_replaces_what_was_there(tmp_path):
    store = Store(tmp_path)
    save(store, 1, value=1)
    path = save(store, 1, value=2)
    assert store.load(path, for_training=True).model["w"].tolist() == [2, 2, 2]
    assert entries(store) == ["last.json", "step-00000001"]


# --- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_damage_to_any_file_is_noticed(tmp_path, name, how):
    store = Store(tmp_path)
    path = save(store, 1, training={"w": torch.ones(3)})
    file = path / name
    content = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
    else:
        content[-2] ^= 1
        file.write_bytes(content if how == "flipped" else content[:-1])
    for for_training in (True, False):
        with pytest.raises(CheckpointError, match="is damaged: " + name.replace(".", r"\.")) as error:
            store.load(path, for_training=for_training)
        assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", r"manifest\.json is damaged"),
        ("[" * 100_000, r"manifest\.json is damaged"),
        ("[]", "expected a JSON object"),
        ("{}", "names no model or state"),
        ('{"sha256": {}}', "names no model or state"),
        ('{"sha256": []}', "names no model or state"),
        ('{"sha256": {"model.safetensors": 1, "state.json": ""}}', "its SHA-256 differs"),
        ('{"sha256": {"model.safetensors": "", "state.json": "", "../../passwords": ""}}', "names ../../passwords"),
    ],
)
def test_a_damaged_manifest_is_noticed(tmp_path, text, message):
    store = Store(tmp_path)
    path = save(store, 1)
    if text is None:
        (path / "manifest.json").unlink()
    else:
        (path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        store.load(path, for_training=True)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"checkpoint": 3}'])
def test_a_damaged_pointer_is_noticed(tmp_path, text):
    store = Store(tmp_path)
    save(store, 1)
    (store.folder / "last.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"last\.json is damaged"):
        store.find("last")


def test_a_pointer_cannot_lead_out_of_the_folder(tmp_path):
    store = Store(tmp_path)
    save(store, 1)
    for name in ("../../elsewhere", "../step-00000001", "/step-00000001", "step-00000001/..", "step-1", "."):
        (store.folder / "last.json").write_text(json.dumps({"checkpoint": name}))
        with pytest.raises(CheckpointError, match=r"last\.json is damaged: it names no checkpoint"):
            store.find("last")


def test_a_run_without_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no checkpoint: expected .*best"):
        best_or_last(tmp_path)
    save(Store(tmp_path), 1)
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000001")
    with pytest.raises(CheckpointError, match=r"step-00000001 is missing\n  no other checkpoint of the run is whole"):
        Store(tmp_path).load(best_or_last(tmp_path), for_training=False)


# --- into a model ------------------------------------------------------------------------------------------------


def test_a_checkpoint_s_tensors_must_be_exactly_the_model_s(tmp_path):
    model, other = make_model(), make_model()
    torch.nn.init.ones_(other.heads["a"].fc.weight)
    load_model(model, other.state_dict(), tmp_path)
    assert torch.equal(model.heads["a"].fc.weight, other.heads["a"].fc.weight)
    tensors = dict(other.state_dict())
    del tensors["mean"]
    tensors["extra"] = torch.zeros(1)
    tensors["heads.a.fc.bias"] = torch.zeros(5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_model(model, tensors, tmp_path)
    assert str(error.value) == (
        f"{tmp_path} does not fit the model; missing: mean; unexpected: extra; of another shape: heads.a.fc.bias"
    )
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
