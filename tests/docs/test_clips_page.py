"""What the page on clips shows: its components work, and its messages are the real ones."""

import pytest
import torch
import yaml
from doc_pages import ROOT, blocks, text
from test_example_packages import PACKAGES, on_path  # noqa: F401

from ftengine.errors import ConfigError
from ftengine.resolve import load

PAGE = ROOT / "docs" / "clips.md"
VIDEO = next(package for package in PACKAGES if package.plugin == "video")


def test_the_backbone_and_the_head_work():
    shown = {}
    (code,) = blocks(PAGE, "python")
    exec(code, shown)
    backbone = shown["Still"](None, None)
    features = backbone(torch.zeros(backbone.input_shape((8, 10), frames=4)))
    assert features["c1"].shape == (1, 8, 3, 4, 5)

    class Context:
        channels = backbone.channels
        task = type("Task", (), {"labels": ("left", "right")})

    head = shown["Mean"](None, Context)
    (prediction,) = head.predict(head(features, None), None)
    assert prediction["scores"].shape == (2,)


@pytest.mark.parametrize(
    "changes",
    [{"backbone": {"name": "resnet18", "weights": "none"}}, {"head": "linear", "backbone": "video/r3d_18"}],
    ids=["backbone", "head"],
)
def test_its_messages_are_the_real_ones(changes, on_path, tmp_path):  # noqa: F811
    on_path(VIDEO)
    config = yaml.safe_load((VIDEO.root / "configs" / VIDEO.config).read_text())
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**config, **changes}))
    with pytest.raises(ConfigError) as error:
        load(file)
    for problem in error.value.problems:
        assert f"\n{problem.path}: {problem.message}\n" in text(PAGE)
