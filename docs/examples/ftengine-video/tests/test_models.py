"""Networks, head and metric, against torchvision's own models."""

import math
from types import SimpleNamespace

import pytest
import torch
from ftengine_video import backbones
from ftengine_video.heads import Action
from ftengine_video.metrics import MeanClassAccuracy
from ftengine_video.options import ActionOptions
from torch import nn
from torchvision import models

from ftengine.plugin import Options
from ftengine.protocols import BackboneContext, HeadContext, LabelMap, MetricContext

NAMES = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d")
TASK = SimpleNamespace(labels=LabelMap(("a", "b", "c")), multi_label=False)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_published_names_are_exactly_torchvisions(name):
    """Loaded under these names, the stages give what torchvision's network gives up to its classifier."""
    backbone = getattr(backbones, name)(Options(), BackboneContext("KINETICS400_V1")).eval()
    torch.manual_seed(1)
    model = models.get_model(name, weights=None).eval()
    published = model.state_dict()
    assert set(backbone.published.values()) | set(backbone.discarded) == set(published)
    assert {key.split(".")[0] for key in backbone.discarded} <= {"fc", "classifier"}
    backbone.load_state_dict({ours: published[theirs] for ours, theirs in backbone.published.items()})
    weights = models.get_model_weights(name).KINETICS400_V1
    assert backbone.url == weights.url
    assert list(backbone.mean) == pytest.approx(weights.transforms().mean)
    assert list(backbone.std) == pytest.approx(weights.transforms().std)
    parts = [
        getattr(model, part)
        for part in ("features", "stem", "layer1", "layer2", "layer3", "layer4")
        if hasattr(model, part)
    ]
    clip = torch.randn(2, 3, 6, 24, 32)
    with torch.no_grad():
        assert torch.equal(backbone(clip)["c5"], nn.Sequential(*parts)(clip))


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("r3d_18", (9, 9, 5, 3, 2)),
        ("mc3_18", (9, 9, 9, 9, 9)),
        ("r2plus1d_18", (9, 9, 5, 3, 2)),
        ("s3d", (5, 5, 5, 3, 1)),
    ],
)
def test_levels_have_the_frames_that_are_said(name, frames):
    backbone = getattr(backbones, name)(Options(), BackboneContext()).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 9, 64, 32))
    assert tuple(feature.shape[2] for feature in features.values()) == frames
    for level, feature in features.items():
        stride = backbone.strides[level]
        assert feature.shape[1:2] + feature.shape[3:] == (backbone.channels[level], 64 // stride, 32 // stride)


def test_the_least_clip_passes(name):
    backbone = getattr(backbones, name)(Options(), BackboneContext()).eval()
    with torch.no_grad():
        assert backbone(torch.zeros(backbone.input_shape((backbone.min_size,) * 2)))["c5"].numel()


@pytest.mark.parametrize("shape", [(4, 17, 17), (6, 16, 17)])
def test_s3d_takes_nothing_smaller(shape):
    with pytest.raises(RuntimeError):
        backbones.s3d(Options(), BackboneContext()).eval()(torch.zeros(1, 3, *shape))


def test_later_stages_can_be_left_out(name):
    backbone = getattr(backbones, name)(Options(), BackboneContext(levels=("c3",)))
    assert backbone.levels == ("c1", "c2", "c3")
    assert any(key.startswith(("layer4.", "features.14.")) for key in backbone.discarded)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_head_averages_over_time_and_space(multi_label):
    task = SimpleNamespace(labels=TASK.labels, multi_label=multi_label)
    head = Action(ActionOptions(), HeadContext({"c4": 2, "c5": 4}, {"c4": 8, "c5": 16}, task)).eval()
    features = torch.randn(2, 4, 3, 5, 6)
    output = head({"c5": features}, None)
    torch.testing.assert_close(output["logits"], head.classifier[1](features.flatten(2).mean(2)))
    scores = torch.stack([prediction["scores"] for prediction in head.predict(output, None)])
    expected = output["logits"].sigmoid() if multi_label else output["logits"].softmax(1)
    torch.testing.assert_close(scores, expected)


def test_each_class_counts_alike():
    metric = MeanClassAccuracy(Options(), MetricContext(TASK))
    assert math.isnan(metric.compute()["mean_class_accuracy"])
    answers, labels = [0, 0, 0, 1], [0, 0, 0, 0]
    metric.update([{"scores": torch.eye(3)[answer]} for answer in answers], {"label": torch.tensor(labels)})
    assert metric.compute() == {"mean_class_accuracy": 0.75}
    other = MeanClassAccuracy(Options(), MetricContext(TASK))
    other.update([{"scores": torch.eye(3)[0]}], {"label": torch.tensor([1])})
    metric.merge(other)
    assert metric.compute() == {"mean_class_accuracy": 0.375}
    assert metric.details() == {"accuracy": {"a": 0.75, "b": 0.0, "c": None}}
