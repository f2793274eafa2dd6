"""The weights a run started from: stored once, verified, and the distance from them."""

import copy
import math

import pytest
import torch
from tiny import TinyBackbone, make_model
from torch import nn

from ftengine.errors import CheckpointError
from ftengine.start import distance, load_start, save_start, start_values


def change(model, by=1.0):
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value.add_(by) if value.is_floating_point() else value.add_(1)


# --- the file ----------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded_whatever_the_model_does_next(tmp_path):
    model = make_model(("a", "b"), learned=("b",))
    model.backbone.to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    digest = save_start(tmp_path, model)
    change(model)
    loaded = load_start(tmp_path, digest)
    assert loaded.keys() == before.keys()
    assert {"backbone.stages.c1.1.running_mean", "losses.b.0.scale", "mean"} <= loaded.keys()
    for name, value in before.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value), name
    assert [entry.name for entry in tmp_path.iterdir()] == ["start.safetensors"]


def test_the_digest_follows_from_the_weights(tmp_path):
    model = make_model()
    digest = save_start(tmp_path, model)
    assert save_start(tmp_path, make_model()) == digest
    change(model)
    assert save_start(tmp_path, model) != digest


def test_tied_weights_are_stored_under_both_names(tmp_path):
    model = make_model(("a", "b"))
    model.heads["b"].fc.weight = model.heads["a"].fc.weight
    loaded = load_start(tmp_path, save_start(tmp_path, model))
    for head in ("a", "b"):
        assert torch.equal(loaded[f"heads.{head}.fc.weight"], model.heads["a"].fc.weight)
    values = start_values(model, loaded)
    assert "head.a.fc.weight" in values
    assert "head.b.fc.weight" not in values, "a shared parameter is the first's"


def test_a_kill_while_it_is_written_leaves_no_start(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            save_start(tmp_path, make_model())
    assert not (tmp_path / "start.safetensors").exists()
    digest = save_start(tmp_path, make_model())
    assert load_start(tmp_path, digest)
    assert [entry.name for entry in tmp_path.iterdir()] == ["start.safetensors"]


def test_a_missing_file_is_named_with_what_to_do(tmp_path):
    digest = save_start(tmp_path, make_model())
    (tmp_path / "start.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"start\.safetensors is missing\n.*or start a new run") as error:
        load_start(tmp_path, digest)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "another run's"])
def test_a_file_that_is_not_what_was_written_is_named(tmp_path, damage):
    digest = save_start(tmp_path, make_model())
    file = tmp_path / "start.safetensors"
    data = bytearray(file.read_bytes())
    if damage == "flipped":
        data[-3] ^= 1
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(data[:-1])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        other = make_model()
        change(other)
        save_start(tmp_path, other)
    with pytest.raises(CheckpointError, match=r"start\.safetensors is damaged: .* SHA-256 differs\)\n.*new run"):
        load_start(tmp_path, digest)


# --- names -------------------------------------------------------------------------------------------------------


def test_values_have_the_names_of_the_parameters():
    model = make_model(learned=("a",))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    values = start_values(model, start)
    assert list(values) == list(model.parameter_names())
    assert values["c1.0.weight"] is start["backbone.stages.c1.0.weight"]
    assert values["head.fc.bias"] is start["heads.a.fc.bias"]
    assert values["loss.0.scale"] is start["losses.a.0.scale"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda start: start.pop("heads.a.fc.bias"), r"missing: heads\.a\.fc\.bias; unexpected: none"),
        (lambda start: start.pop("backbone.stages.c1.1.running_mean"), r"missing: backbone\.stages\.c1\.1\.running_m"),
        (lambda start: start.update(extra=torch.ones(1)), r"missing: none; unexpected: extra; of another shape: none"),
        (
            lambda start: start.update({"backbone.stages.c2.0.weight": torch.ones(6, 4, 1, 1)}),
            r"of another shape: backbone\.stages\.c2\.0\.weight",
        ),
    ],
)
def test_a_start_of_another_model_is_refused(change, message):
    model = make_model()
    start = dict(model.state_dict())
    change(start)
    with pytest.raises(CheckpointError, match=message):
        start_values(model, start)


# --- distance ----------------------------------------------------------------------------------------------------


class Plain(TinyBackbone):
    """Two stages of two weights each, and one without any."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleDict({name: nn.BatchNorm2d(2) for name in ("c1", "c2")} | {"c3": nn.ReLU()})
        for name, weight in (("c1", (3.0, 4.0)), ("c2", (12.0, 0.0))):
            self.stages[name].weight.data = torch.tensor(weight)
            self.stages[name].bias.data.zero_()


def started():
    """A backbone and a copy of its tensors."""
    backbone = Plain()
    return backbone, copy.deepcopy(backbone.state_dict())


def test_distance_by_hand():
    backbone, start = started()
    assert distance(backbone, start) == {"backbone": 0.0, "c1": 0.0, "c2": 0.0}
    with torch.no_grad():
        backbone.stages["c1"].weight.add_(torch.tensor([1.0, -2.0]))
        backbone.stages["c1"].bias.add_(torch.tensor([2.0, 0.0]))
        backbone.stages["c2"].weight.add_(torch.tensor([0.0, 4.0]))
        backbone.stages["c2"].running_mean.add_(100)  # buffers do not count
    moved = distance(backbone, start)
    assert moved == pytest.approx({"backbone": 5 / 13, "c1": 3 / 5, "c2": 4 / 12}, rel=1e-12)
    assert next(iter(moved)) == "backbone"


def test_a_frozen_part_counts_as_unmoved():
    backbone, start = started()
    backbone.stages["c1"].requires_grad_(False)
    with torch.no_grad():
        backbone.stages["c2"].weight.add_(1)
    moved = distance(backbone, start)
    assert moved["c1"] == 0
    assert moved["backbone"] == pytest.approx(math.sqrt(2) / 13)


def test_what_stages_share_counts_once():
    backbone = Plain()
    backbone.stages["c2"].weight = backbone.stages["c1"].weight
    start = copy.deepcopy(backbone.state_dict())
    with torch.no_grad():
        backbone.stages["c2"].weight.add_(torch.tensor([3.0, 0.0]))
        backbone.stages["c2"].bias.add_(torch.tensor([4.0, 0.0]))
    moved = distance(backbone, start)
    assert moved["c1"] == pytest.approx(3 / 5)
    assert moved["backbone"] == pytest.approx(5 / 5)


def test_small_moves_of_many_large_weights_are_not_lost():
    backbone = Plain()
    backbone.stages["c1"] = nn.Linear(1000, 1000, bias=False)
    nn.init.constant_(backbone.stages["c1"].weight, 1.0)
    start = copy.deepcopy(backbone.state_dict())
    with torch.no_grad():
        backbone.stages["c1"].weight.add_(2**-20)
    assert distance(backbone, start)["c1"] == pytest.approx(2**-20, rel=1e-9)


def test_zeros_that_move_are_infinitely_far():
    backbone = Plain()
    nn.init.zeros_(backbone.stages["c2"].weight)
    start = copy.deepcopy(backbone.state_dict())
    assert distance(backbone, start)["c2"] == 0
    with torch.no_grad():
        backbone.stages["c2"].bias.add_(1)
    moved = distance(backbone, start)
    assert moved["c2"] == math.inf
    assert moved["backbone"] == pytest.approx(math.sqrt(2) / 5)


def test_the_distance_from_another_backbone_is_refused():
    backbone, start = started()
    start["stages.c2.base_layer.weight"] = start.pop("stages.c2.weight")
    with pytest.raises(CheckpointError, match=r"missing: stages\.c2\.weight; unexpected: stages\.c2\.base_layer\.weig"):
        distance(backbone, start)
