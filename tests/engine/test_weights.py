"""Pretrained weights: how they are found, read and matched, and what is refused."""

import os
import pickle
import re

import pytest
import torch
from safetensors.torch import save_file
from tiny import TinyBackbone

from ftengine.checkpoint import Snapshot, Store
from ftengine.errors import WeightsError
from ftengine.weight_source import WeightSource
from ftengine.weights import assign, load_weights, published_file, read_tensors


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return TinyBackbone()


def other_tensors():
    """The state of a backbone with other weights, by its own names."""
    torch.manual_seed(1)
    return {name: tensor.clone() for name, tensor in TinyBackbone().stages.state_dict().items()}


def equal(backbone, tensors):
    own = backbone.stages.state_dict()
    return all(torch.equal(own[name], tensor) for name, tensor in tensors.items())


def file_source(path, *allow):
    return WeightSource("file", str(path), allow)


# --- matching ----------------------------------------------------------------------------------------------------


def test_weights_by_their_own_names_with_a_report_by_stage(backbone):
    tensors = other_tensors()
    coverage = assign(backbone, tensors, "here")
    assert equal(backbone, tensors)
    assert coverage.stages == {"c1": (6, 6), "c2": (6, 6)}
    assert coverage.describe() == ["weights from here", "  c1: 6 of 6 tensors", "  c2: 6 of 6 tensors"]


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "backbone.", "stages.", "encoder.", "backbone.stages.", "module.model.", "_orig_mod.module."],
)
def test_prefixes_are_taken_off(backbone, prefix):
    tensors = other_tensors()
    coverage = assign(backbone, {prefix + name: tensor for name, tensor in tensors.items()}, "here")
    assert equal(backbone, tensors)
    assert not coverage.unexpected


@pytest.mark.parametrize("stages", ["", "stages."])
def test_published_names(stages):
    names = list(TinyBackbone().stages.state_dict())
    published = {f"{stages}{name}": f"layer.{index}" for index, name in enumerate(names)}
    backbone = TinyBackbone(published=published, discarded=("fc.weight", "fc.bias"))
    tensors = other_tensors()
    file = {f"layer.{index}": tensors[name] for index, name in enumerate(names)}
    coverage = assign(backbone, {**file, "fc.weight": torch.zeros(2), "fc.bias": torch.zeros(1)}, "here")
    assert equal(backbone, tensors)
    assert coverage.discarded == ["fc.weight", "fc.bias"]
    assert coverage.describe()[-1] == "  not used by this backbone, as expected: 2 (fc.bias, fc.weight)"
    again = TinyBackbone(published=published)
    assign(again, tensors, "by its own names")
    assert equal(again, tensors)


def test_a_counter_that_old_files_lack_is_not_missed(backbone):
    tensors = {name: tensor for name, tensor in other_tensors().items() if "num_batches" not in name}
    coverage = assign(backbone, tensors, "old")
    assert (coverage.missing, coverage.stages) == ([], {"c1": (5, 6), "c2": (5, 6)})
    assert equal(backbone, tensors)


def test_half_precision_becomes_the_backbone_s(backbone):
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in other_tensors().items()}
    assign(backbone, tensors, "half")
    assert equal(
        backbone, {name: tensor.to(backbone.stages.state_dict()[name].dtype) for name, tensor in tensors.items()}
    )
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}


def broken():
    tensors = other_tensors()
    del tensors["c2.1.bias"]
    tensors["c1.0.weight"] = torch.zeros(4, 1, 3, 3)
    tensors["head.weight"] = torch.zeros(3)
    return tensors


def test_differences_are_reported_and_nothing_is_copied(backbone, tmp_path):
    before = {name: tensor.clone() for name, tensor in backbone.stages.state_dict().items()}
    save_file(broken(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as error:
        load_weights(backbone, file_source(tmp_path / "w.safetensors"))
    assert str(error.value).splitlines() == [
        "backbone.weights: the weights do not fit the backbone",
        f"weights from {tmp_path / 'w.safetensors'}",
        "  c1: 5 of 6 tensors",
        "  c2: 5 of 6 tensors",
        "  missing in the file: 1 (c2.1.bias)",
        "  of another shape: 1 (c1.0.weight ([4, 1, 3, 3] in the file, [4, 3, 3, 3] in the backbone))",
        "  unexpected in the file: 1 (head.weight)",
        "  if these differences are meant, list globs for them under backbone.weights.allow",
    ]
    assert equal(backbone, before)


def test_allowed_differences_are_left_as_they_are(backbone, tmp_path):
    before = {name: tensor.clone() for name, tensor in backbone.stages.state_dict().items()}
    tensors = broken()
    save_file(tensors, tmp_path / "w.safetensors")
    coverage = load_weights(backbone, file_source(tmp_path / "w.safetensors", "head.*", "c?.1.bias", "c1.0.weight"))
    assert [name.split(" ")[0] for name in coverage.allowed] == ["c1.0.weight", "head.weight", "c2.1.bias"]
    own = backbone.stages.state_dict()
    for name in own:
        expected = before[name] if name in ("c1.0.weight", "c2.1.bias") else tensors[name]
        assert torch.equal(own[name], expected), name


def test_a_glob_allows_only_what_it_names(backbone, tmp_path):
    save_file(broken(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as error:
        load_weights(backbone, file_source(tmp_path / "w.safetensors", "head.*", "c1.*"))
    assert "missing in the file: 1 (c2.1.bias)" in str(error.value)
    assert "unexpected" not in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_and_nothing_is_copied(backbone, value):
    before = {name: tensor.clone() for name, tensor in backbone.stages.state_dict().items()}
    tensors = other_tensors()
    tensors["c2.1.running_var"][2] = value
    with pytest.raises(WeightsError, match=r"here holds values that are not finite: c2\.1\.running_var"):
        assign(backbone, tensors, "here")
    assert equal(backbone, before)


# --- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "model_state_dict", "twice"])
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_pth_file_plain_and_wrapped(tmp_path, wrap, suffix):
    tensors = other_tensors()
    content = tensors if wrap is None else {wrap: tensors, "epoch": 3, "note": "x"}
    if wrap == "twice":
        content = {"model": {"state_dict": tensors}}
    torch.save(content, tmp_path / f"w{suffix}")
    read = read_tensors(tmp_path / f"w{suffix}")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_a_torch_file_called_safetensors_is_read_as_what_it_is(tmp_path):
    torch.save(other_tensors(), tmp_path / "w.safetensors")
    assert read_tensors(tmp_path / "w.safetensors").keys() == other_tensors().keys()


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy pickle"])
def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path, old):
    target, file = tmp_path / "made", tmp_path / "w.pth"
    content = {"state_dict": other_tensors(), "payload": Payload(str(target))}
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    with pytest.raises(WeightsError, match="holds more than tensors, or is damaged, and is not read"):
        read_tensors(file)
    assert not target.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_plain_pickle_that_would_run_code_is_refused_and_does_not(tmp_path):
    target, file = tmp_path / "made", tmp_path / "w.pth"
    file.write_bytes(pickle.dumps(Payload(str(target))))
    with pytest.raises(WeightsError, match=re.escape(str(file))):
        read_tensors(file)
    assert not target.exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"nonsense that is no weights at all", b"PK nonsense"])
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=re.escape(str(tmp_path / name))):
        read_tensors(tmp_path / name)


def test_a_file_that_is_not_there_or_holds_no_tensors(tmp_path):
    with pytest.raises(WeightsError, match="no such file: "):
        read_tensors(tmp_path / "w.pth")
    for content in ([torch.zeros(1)], {"a": 1}, torch.zeros(2)):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match="holds no state dict: expected a mapping of names to tensors"):
            read_tensors(tmp_path / "w.pth")


# --- sources -----------------------------------------------------------------------------------------------------


def test_none_leaves_the_backbone_alone(backbone):
    before = {name: tensor.clone() for name, tensor in backbone.stages.state_dict().items()}
    assert load_weights(backbone, WeightSource("none")) is None
    assert equal(backbone, before)


def test_the_backbone_of_an_earlier_run(backbone, tmp_path):
    tensors = {f"backbone.stages.{name}": tensor for name, tensor in other_tensors().items()}
    normalisation = {"mean": torch.full((1, 3, 1, 1), 0.25), "std": torch.full((1, 3, 1, 1), 0.75)}
    rest = {"heads.a.fc.weight": torch.zeros(3), **normalisation}
    Store(tmp_path).save(7, Snapshot({**tensors, **rest}, {}, {}, {}), best=True)
    coverage = load_weights(backbone, WeightSource("run", str(tmp_path)))
    assert coverage.source == f"run:{tmp_path} (step-00000007)"
    assert coverage.unexpected == []
    assert equal(backbone, other_tensors())
    assert (backbone.mean, backbone.std) == ((0.25,) * 3, (0.75,) * 3)


URL = "https://example.invalid/models/tiny-0123abcd.pth"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder where published weights are kept."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.mark.parametrize(("file_name", "kept"), [(None, "tiny-0123abcd.pth"), ("own.pth", "own.pth")])
def test_published_weights_come_from_the_cache(cache, file_name, kept):
    cache.mkdir(parents=True)
    torch.save(other_tensors(), cache / kept)
    backbone = TinyBackbone(url=URL, weights_file=file_name)
    coverage = load_weights(backbone, WeightSource("published", "V1"))
    assert coverage.source == f"V1 ({URL})"
    assert equal(backbone, other_tensors())


def test_weights_that_are_not_in_the_cache_are_downloaded_to_it_with_their_hash(cache, monkeypatch):
    asked = []
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", lambda url, file, digest, progress: asked.append((url, file, digest))
    )
    assert published_file(URL, None, "V1", "backbone.weights") == cache / "tiny-0123abcd.pth"
    published_file(URL, "own.pth", "V1", "backbone.weights")
    assert asked == [(URL, str(cache / "tiny-0123abcd.pth"), "0123abcd"), (URL, str(cache / "own.pth"), None)]
    assert cache.is_dir()


def test_a_missing_network_is_one_clear_error(cache, monkeypatch):
    def no_network(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(WeightsError) as error:
        load_weights(TinyBackbone(url=URL), WeightSource("published", "V1"))
    assert str(error.value).splitlines() == [
        "backbone.weights: V1 is not on this machine and could not be downloaded",
        f"  looked for {cache / 'tiny-0123abcd.pth'}",
        f"  tried {URL}: Name or service not known",
        "  put the file there, or name a file of your own in backbone.weights, "
        "or say `none` to start from random weights",
    ]


def test_published_weights_of_unknown_origin(backbone):
    with pytest.raises(WeightsError, match="nothing is known of where 'V1' can be had"):
        load_weights(backbone, WeightSource("published", "V1"))
