"""Samples that are clips: refused where they do not fit, and treated alike in all of their frames."""

import json
import sys

import numpy as np
import pytest
import safetensors
import torch
import yaml
from test_augment import transform
from torch import nn

from ftengine.augment import build
from ftengine.augment_table import table
from ftengine.config import ImageConfig, MixConfig
from ftengine.data import Failure, Split
from ftengine.errors import ConfigError, FtengineError
from ftengine.geometry import Scene, fit_scene
from ftengine.images import fit
from ftengine.mixing import Mixing
from ftengine.model import Model, StreamBatch
from ftengine.precision import Precision
from ftengine.protocols import Backbone, Dataset, Frame
from ftengine.resolve import load

PLUGIN = """
from pydantic import Field
from ftengine.plugin import *

FTENGINE_API = (1, 1)

class Clips(DatasetOptions):
    frames: int | None = Field(3, description="How many frames; none: images.")
    short: int = Field(-1, description="The sample that has one frame less.")
    def clip_frames(self):
        return self.frames

@hookimpl
def register_datasets():
    yield DatasetSpec(name="bars", factory="moving_models:Bars", summary="B.", options=Clips, fields=("label", "mask"))

@hookimpl
def register_backbones():
    yield BackboneSpec(name="tiny", factory="moving_models:Tiny", summary="T.", levels=("c1",), input="clip")
    yield BackboneSpec(name="wrong", factory="moving_models:Tiny", summary="T.", levels=("c1",))

@hookimpl
def register_heads():
    yield HeadSpec(name="mean", task="classification", factory="moving_models:Mean", summary="M.", input="clip")
    yield HeadSpec(name="outline", task="segmentation", factory="moving_models:Mean", summary="M.", input="clip")
"""
MODELS = """
import numpy as np
from torch import nn
from ftengine.protocols import Backbone, Dataset, Head

class Bars(Dataset):
    # A bright column that moves to the left, or to the right.
    names = {"label": ("left", "right"), "mask": ("no", "yes")}
    def __init__(self, options, context):
        self.options = options
    def __len__(self):
        return 24
    def target(self, index):
        return {"label": index % 2}
    def sample_id(self, index):
        return f"bar-{range(24)[index]}"
    def image(self, index):
        frames = (self.options.frames or 1) - (index == self.options.short)
        clip = np.zeros((frames, 8, 12, 3), np.uint8)
        for time in range(frames):
            clip[time, :, (index + (2 * (index % 2) - 1) * time) % 12] = 255
        return clip if self.options.frames else clip[0]

class Tiny(Backbone):
    def __init__(self, options, context):
        conv = nn.Conv3d(3, 8, (2, 3, 3), (1, 2, 2), (0, 1, 1))
        super().__init__({"c1": nn.Sequential(conv, nn.ReLU())}, {"c1": 8}, {"c1": 2}, clip=2)

class Mean(Head):
    def __init__(self, options, context):
        super().__init__()
        self.fc = nn.Linear(8, 2)
    def forward(self, features, batch):
        return {"logits": self.fc(features["c1"].mean((2, 3, 4)))}
    def predict(self, output, batch):
        return [{"scores": row} for row in output["logits"].detach().softmax(-1).float().cpu()]
"""
RUN = {
    "task": "classification",
    "data": {"format": "moving/bars"},
    "image": {"size": [8, 12]},
    "backbone": {"name": "moving/tiny", "weights": "none"},
    "head": "moving/mean",
    "train": {"epochs": 1, "batch_size": 6, "workers": 0, "precision": "fp32"},
}


@pytest.fixture
def config(tmp_path, install_plugin):
    """Writes a config of the small plugin above, with changes; the file."""
    install_plugin("moving", PLUGIN)
    (tmp_path / "site-moving" / "moving_models.py").write_text(MODELS)

    def write(**changes):
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump({**RUN, **changes}))
        return file

    yield write
    sys.modules.pop("moving_models", None)


# --- what goes together ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (
            {"backbone": {"name": "resnet18", "weights": "none"}},
            ["backbone: resnet18 takes images, but moving/bars gives clips of 3 frames; backbones for clips: "],
        ),
        (
            {"data": {"format": "moving/bars", "frames": None}},
            ["backbone: moving/tiny takes clips, but moving/bars gives images; backbones for images: "],
        ),
        (
            {"data": "digits"},
            ["backbone: moving/tiny takes clips, but digits gives images"],
        ),
        (
            {"head": "linear"},
            ["head: linear reads features of images, and moving/tiny takes clips; heads of classification for clips: "],
        ),
        (
            {"data": "digits", "backbone": {"name": "resnet18", "weights": "none"}},
            ["head: moving/mean reads features of clips, and resnet18 takes images"],
        ),
        (
            {"task": "segmentation", "head": "moving/outline"},
            ["data: `mask` is a place in an image, and cannot be learnt from clips"],
        ),
    ],
    ids=["image backbone", "image option", "image data", "image head", "clip head", "mask"],
)
def test_what_does_not_go_together_is_refused_before_torch_is_needed(changes, messages, config):
    with pytest.raises(ConfigError) as error:
        load(config(**changes))
    said = [str(problem).partition("yaml:")[2] for problem in error.value.problems]
    assert len(said) == len(messages)
    for text, message in zip(said, messages, strict=True):
        assert message in text


def test_clips_too_short_for_the_network_are_refused(config, cli, tmp_path):
    file = config(data={"format": "moving/bars", "frames": 1})
    result = cli("run", "--config", file, "--output", tmp_path / "run")
    assert result.exit_code == 2
    assert "data: moving/tiny takes clips of at least 2 frames, found 1" in result.output


def test_a_factory_that_made_something_else_is_named(config, cli, tmp_path):
    data = {"format": "moving/bars", "frames": None}
    file = config(backbone={"name": "moving/wrong", "weights": "none"}, data=data, head="linear")
    result = cli("run", "--config", file, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "'moving/wrong': its spec says that it takes images" in result.output
    assert "made is for clips of at least 2 frames" in result.output


def test_a_sample_of_another_length_is_named(config, cli, tmp_path):
    file = config(data={"format": "moving/bars", "short": 4})
    result = cli("run", "--config", file, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "sample bar-4: expected an image of [3, H, W, 3], found [2, 8, 12, 3]" in result.output


def test_an_input_that_there_is_not_is_no_spec(install_plugin, cli):
    install_plugin("moving", PLUGIN.replace('input="clip"', 'input="video"'))
    result = cli("plugins", "show", "moving")
    assert "input must be 'image' or 'clip', not 'video'" in " ".join(result.output.split())


# --- a run -------------------------------------------------------------------------------------------------------


def test_a_run_of_clips_learns_and_is_evaluated_exported_and_not_used_for_images(config, cli, tmp_path, write_image):
    file, run = (
        config(
            augment=[{"name": "RandomBrightnessContrast", "p": 1.0}],
            mix={"cutmix": 1.0},
            image={"size": [8, 12], "fit": "pad"},
            optimizer={"name": "adamw", "lr": 0.01},
            train={**RUN["train"], "workers": 1},
        ),
        tmp_path / "run",
    )
    result = cli("run", "--config", file, "--output", run)
    assert result.exit_code == 0, result.output
    summary = json.loads((run / "summary.json").read_text())
    assert cli("evaluate", run).exit_code == 0
    assert 0 <= summary["metrics"]["val"]["accuracy"] <= 1
    assert cli("export", run, tmp_path / "model.safetensors").exit_code == 0
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as exported:
        assert exported.metadata()["frames"] == "3"
    refused = cli("predict", run, write_image(tmp_path / "image.png"))
    assert refused.exit_code == 2
    assert "has learnt from clips (moving/bars), and image files are none" in " ".join(refused.output.split())


# --- frames alike ------------------------------------------------------------------------------------------------


@pytest.fixture
def clip():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", sorted(name for name in table() if not table()[name]["needs"]))
def test_an_augmentation_draws_once_for_all_frames(name, clip):
    augment = build([transform(name)])
    still = np.stack([clip[0]] * 3)
    one, all_of_them = augment(Scene(clip[0]), 7).image, augment(Scene(still), 7).image
    assert all_of_them.shape == (3, *one.shape)
    assert all(np.array_equal(frame, one) for frame in all_of_them)


def test_frames_keep_their_order_and_their_differences(clip):
    flipped = build([{"name": "HorizontalFlip", "p": 1.0}])(Scene(clip), 0).image
    assert np.array_equal(flipped, clip[:, :, ::-1])


def test_what_an_augmentation_makes_of_a_clip_is_checked(clip, monkeypatch):
    import albumentations

    monkeypatch.setattr(
        albumentations.HorizontalFlip, "apply_to_images", lambda self, images, **params: images[..., :1]
    )
    augment = build([{"name": "HorizontalFlip", "p": 1.0}])
    with pytest.raises(FtengineError, match=r"augment\[0\]: HorizontalFlip made uint8 3×32×40×1 of uint8 3×32×40×3"):
        augment(Scene(clip), 0)


@pytest.mark.parametrize("mode", ["crop", "stretch", "pad"])
def test_each_frame_is_fitted_as_an_image(mode, clip):
    scene, frame = fit_scene(Scene(clip), ImageConfig(size=(16, 24), fit=mode))
    assert frame.size == (16, 24)
    assert np.array_equal(scene.image, np.stack([fit(one, (16, 24), mode) for one in clip]))


class Sizes(Dataset):
    names = {}  # noqa: RUF012

    def __len__(self):
        return 2

    def target(self, index):
        return {}

    def sample_id(self, index):
        return f"clip-{index}"

    def image(self, index):
        return np.full((2, 20 + 30 * index, 40, 3), 9, np.uint8)


def test_clips_of_several_sizes_are_padded_into_one_tensor():
    split = Split(Sizes(), {}, {}, ImageConfig(fit="none"), frames=2)
    batch = split.collate([split[0, 0], split[0, 1]])
    assert batch.images.shape == (2, 2, 64, 64, 3)
    for images, frame, height in zip(batch.images, batch.frames, (20, 50), strict=True):
        assert frame == Frame.whole(height, 40)
        assert images[:, :height, :40].eq(9).all()
        assert images.sum() == 9 * 2 * height * 40 * 3


def test_an_image_in_place_of_a_clip_is_a_failure():
    for frames, expected in ((None, "[H, W, 3]"), (5, "[5, H, W, 3]")):
        found = Split(Sizes(), {}, {}, ImageConfig(fit="none"), frames=frames)[0, 1]
        assert found == Failure(f"sample clip-1: expected an image of {expected}, found [2, 50, 40, 3]")


def batch_of(clips, size=None):
    size = size or tuple(clips.shape[2:4])
    return StreamBatch(clips, {}, [str(i) for i in range(len(clips))], [Frame.whole(*size)] * len(clips))


def model_for(clip):
    backbone = Backbone({"c1": nn.Conv3d(3, 4, 3) if clip else nn.Conv2d(3, 4, 3)}, {"c1": 4}, {"c1": 1}, clip=clip)
    return Model(backbone, {}, {}, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def test_each_frame_is_normalised_as_an_image():
    clips = torch.randint(0, 256, (2, 3, 8, 10, 3), dtype=torch.uint8)
    images = model_for(None).normalise(batch_of(clips.flatten(0, 1), (6, 7)))
    found = model_for(2).normalise(batch_of(clips, (6, 7)))
    assert torch.equal(found, images.unflatten(0, (2, 3)).transpose(1, 2))


def test_channels_last_has_a_time_axis(tmp_path):
    from ftengine.config_train import TrainConfig

    model = model_for(2)
    Precision(TrainConfig(batch_size=1, epochs=1, device="cpu", channels_last=True), True).place(model)
    images = model.normalise(batch_of(torch.zeros(2, 3, 8, 10, 3, dtype=torch.uint8)))
    assert images.is_contiguous(memory_format=torch.channels_last_3d)
    assert model.backbone.stages["c1"].weight.is_contiguous(memory_format=torch.channels_last_3d)


class Halves:
    """A task of two classes."""

    def soften(self, targets):
        return {"label": nn.functional.one_hot(targets["label"], 2).float()}


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_all_frames_are_mixed_as_an_image_is(kind):
    clips = torch.randint(0, 256, (3, 2, 8, 8, 3), dtype=torch.uint8)
    mixing = Mixing(MixConfig(**{kind: 1.0}), {"task": Halves()})
    results = []
    for images in (clips, clips[:, 0], clips[:, 1]):
        batch = batch_of(images, (8, 8))
        batch.targets = {"task": {"label": torch.tensor([0, 1, 1])}}
        torch.manual_seed(3)
        results.append(mixing(batch, ["task"]))
    whole, *frames = results
    assert whole.images.shape == (3, 2, 8, 8, 3)
    for place, frame in enumerate(frames):
        assert torch.equal(whole.images[:, place], frame.images)
        assert torch.equal(whole.targets["task"]["label"], frame.targets["task"]["label"])
