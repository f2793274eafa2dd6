"""What `backbone.weights` means, and what it says of something that is not there."""

import pytest

from ftengine.config_refs import Weights
from ftengine.errors import FtengineError
from ftengine.plugin import BackboneSpec
from ftengine.weight_source import WeightSource, weight_source

KNOWN = {"name": "net", "factory": "m:f", "summary": "A net."}
SPEC = BackboneSpec(**KNOWN, weights=("IMAGENET_V1", "IMAGENET_V2"), default_weights="IMAGENET_V2")


def source(text, spec=SPEC, allow=()):
    return weight_source(Weights(source=text, allow=allow), spec, "net")


@pytest.mark.parametrize(
    ("text", "expected", "written"),
    [
        ("none", WeightSource("none"), "none"),
        ("default", WeightSource("published", "IMAGENET_V2"), "IMAGENET_V2"),
        ("IMAGENET_V1", WeightSource("published", "IMAGENET_V1"), "IMAGENET_V1"),
    ],
)
def test_names(text, expected, written):
    made = source(text)
    assert (made, made.text) == (expected, written)
    assert source(made.text) == made


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_files_become_absolute(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"w{suffix}").touch()
    made = source(f"w{suffix}", allow=("fc.*",))
    assert made == WeightSource("file", str(tmp_path / f"w{suffix}"), ("fc.*",))
    assert source(made.text, allow=made.allow) == made


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.pth").touch()
    assert source("~/w.pth").value == str(tmp_path / "w.pth")


def test_run_directories_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    with pytest.raises(FtengineError, match="run is not a run directory: it has no resolved"):
        source("run:run")
    (tmp_path / "run" / "resolved.yaml").touch()
    assert source("run:run", allow=("fc.*",)).allow == ("fc.*",)
    made = source("run:run")
    assert (made.kind, made.value, made.text) == ("run", str(tmp_path / "run"), f"run:{tmp_path / 'run'}")
    assert source(made.text) == made


def refusal(*arguments):
    with pytest.raises(FtengineError) as error:
        source(*arguments)
    return str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    (tmp_path / "resnet.pth").touch()
    assert refusal(str(tmp_path / "resnt.pth")) == (
        f"no such file: {tmp_path / 'resnt.pth'}; did you mean 'resnet.pth'?"
    )
    assert refusal(str(tmp_path / "x" / "w.pth")) == (
        f"no such file: {tmp_path / 'x' / 'w.pth'}; there is no folder {tmp_path / 'x'}"
    )


def test_a_file_that_is_not_there_in_an_empty_folder(tmp_path):
    assert refusal(str(tmp_path / "w.pth")) == f"no such file: {tmp_path / 'w.pth'}"


CHOICES = "none, a file (.safetensors, .pth, .pt), or run:DIR"


def test_names_that_do_not_exist():
    assert refusal("IMAGENET_V3") == (
        "net has no weights 'IMAGENET_V3'; did you mean 'IMAGENET_V2'? "
        f"(expected default, IMAGENET_V1, IMAGENET_V2, {CHOICES})"
    )
    assert refusal("zzz").startswith("net has no weights 'zzz' (expected default, ")


def test_a_backbone_without_published_weights():
    bare = BackboneSpec(**KNOWN)
    assert refusal("default", bare) == (
        f"net has no published weights; say where they are, or `none`: (nothing published), {CHOICES}"
    )


def test_a_backbone_whose_names_only_its_library_knows_takes_any():
    open_names = BackboneSpec(**KNOWN, open_weights=True)
    assert source("anything", open_names) == WeightSource("published", "anything")
    assert "no such file" in refusal("anything.pth", open_names)
