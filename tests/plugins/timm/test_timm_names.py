"""Models, tags and files by timm's names."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from timm.models import PretrainedCfg

from ftengine.errors import FtengineError, WeightsError
from ftengine_timm.names import file_of, resolve


def test_default_is_timms_first_tag_and_its_file_has_the_models_name() -> None:
    source = resolve("resnet18", "default")
    assert (source.architecture, source.tag) == ("resnet18", "a1_in1k")
    assert source.url == "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors"
    assert source.file == "timm--resnet18.a1_in1k.safetensors"


@pytest.mark.parametrize(
    ("model", "weights"), [("resnet18", "fb_ssl_yfcc100m_ft_in1k"), ("resnet18.tv_in1k", "default")]
)
def test_a_tag_names_the_weights(model: str, weights: str) -> None:
    source = resolve(model, weights)
    assert source.tag == (weights if weights != "default" else "tv_in1k")
    assert f"resnet18.{source.tag}" in source.url


def test_mean_and_std_are_the_tags() -> None:
    assert resolve("vit_base_patch16_224", "default").config.mean == (0.5, 0.5, 0.5)
    assert resolve("vit_base_patch16_clip_224", "openai").config.std == pytest.approx(
        (0.2686, 0.2613, 0.2758), abs=1e-4
    )


def test_no_weights_need_no_file() -> None:
    source = resolve("resnet18", None)
    assert source.url is None
    assert source.file is None


@pytest.mark.parametrize(
    ("model", "weights", "error", "text"),
    [
        ("resnet_18", None, FtengineError, "unknown timm model 'resnet_18'; did you mean 'resnet18'?"),
        ("resnet18.a1_in1", None, WeightsError, "did you mean 'a1_in1k'?"),
        ("resnet18", "a1_in1", WeightsError, "unknown weights of resnet18 'a1_in1'; did you mean 'a1_in1k'?"),
        ("resnet18.tv_in1k", "a1_in1k", WeightsError, "contradict"),
        ("resnet18", "IMAGENET1K_V1", WeightsError, "known: a1_in1k"),
        ("resnet14t", "nothing", WeightsError, "c3_in1k"),
    ],
)
def test_a_wrong_name_is_an_error_with_the_nearest(model: str, weights: str | None, error: type, text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        resolve(model, weights)


def test_a_model_without_published_weights_is_an_error() -> None:
    with pytest.raises(WeightsError, match="no published weights for botnet50ts_256"):
        resolve("botnet50ts_256", "default")


def test_listing_leaves_torch_unimported() -> None:
    code = (
        "import sys; from ftengine_timm import plugin; list(plugin.register_backbones()); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_in_a_format_of_their_own_are_an_error() -> None:
    config = PretrainedCfg(url="https://example.org/model.npz", custom_load=True, tag="jax")
    with pytest.raises(WeightsError, match=r"vit\.jax are in a format that only timm reads"):
        file_of("vit", config, {"jax": config})


def test_a_plain_address_keeps_its_file_name() -> None:
    config = PretrainedCfg(url="https://example.org/models/net-1234.pth", tag="in1k")
    source = file_of("net", config, {"in1k": config})
    assert (source.url, source.file) == (config.url, "net-1234.pth")
