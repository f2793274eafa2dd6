"""Published models: head and backbone from one file, and what depends on the classes anew."""

import pytest
import torch
from tiny import TinyBackbone
from torch import nn

from ftengine.errors import WeightsError
from ftengine.protocols import Head, PublishedModel
from ftengine.weights import load_published

URL = "https://example.org/whole.pth"


class Layers(Head):
    def __init__(self, classes, norm_eps=None):
        super().__init__()
        self.hidden = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5)
        self.predictor = nn.Linear(5, classes)
        norm = {name: f"neck.{name.removeprefix('norm.')}" for name in self.state_dict() if name.startswith("norm.")}
        self.published = PublishedModel(
            URL,
            {"hidden.weight": "roi.fc.weight", "hidden.bias": "roi.fc.bias", **norm, **{k: k for k in PREDICTOR}},
            "body.",
            replaced=PREDICTOR,
            discarded=("extra.*",),
            norm_eps=norm_eps,
        )

    def forward(self, features, batch):
        return {}

    def predict(self, output, batch):
        return []


PREDICTOR = ("predictor.weight", "predictor.bias")


def content():
    """What the published file holds: another backbone, the head's layers, a predictor of 91 classes, a mask branch."""
    torch.manual_seed(1)
    body, head = TinyBackbone(), Layers(91)
    tensors = {f"body.{name}": tensor for name, tensor in body.stages.state_dict().items()}
    tensors |= {theirs: head.state_dict()[ours] for ours, theirs in head.published.names.items()}
    return {name: t.clone() for name, t in tensors.items() if "num_batches" not in name} | {"extra.x": torch.ones(1)}


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)

    def put(tensors):
        torch.save(tensors, folder / "whole.pth")
        torch.manual_seed(0)
        return TinyBackbone(), Layers(3)

    return put


def test_head_and_backbone_are_loaded_and_the_predictor_stays_new(cached):
    tensors = content()
    backbone, head = cached(tensors)
    before = {name: head.state_dict()[name].clone() for name in PREDICTOR}
    coverage = load_published(backbone, head, "coco")
    assert torch.equal(head.hidden.weight, tensors["roi.fc.weight"])
    assert torch.equal(head.norm.running_var, tensors["neck.running_var"])
    own = backbone.stages.state_dict()
    assert all(torch.equal(own[n], tensors[f"body.{n}"]) for n in own if "num_batches" not in n)
    assert all(torch.equal(head.state_dict()[name], tensor) for name, tensor in before.items())
    report = "\n".join(coverage.describe())
    assert f"weights from coco ({URL})" in report
    assert "head: 6 of 9 tensors" in report
    assert "allowed differences: 2 (predictor.bias (new, for these classes), predictor.weight" in report
    assert "not used by this backbone, as expected: 1 (extra.x)" in report


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (lambda t: t.pop("roi.fc.bias"), "missing in the file: 1 (head.hidden.bias)"),
        (lambda t: t.pop("body.c1.0.weight"), "missing in the file: 1 (c1.0.weight)"),
        (lambda t: t.update(other=torch.ones(2)), "unexpected in the file: 1 (other)"),
        (lambda t: t.update({"body.c9.weight": torch.ones(2)}), "unexpected in the file: 1 (c9.weight)"),
        (
            lambda t: t.update({"roi.fc.weight": torch.ones(5, 7)}),
            "of another shape: 1 (head.hidden.weight ([5, 7] in the file, [5, 6] in the head))",
        ),
    ],
)
def test_every_other_difference_is_refused(cached, change, reported):
    tensors = content()
    change(tensors)
    backbone, head = cached(tensors)
    kept = head.hidden.weight.clone()
    with pytest.raises(WeightsError) as caught:
        load_published(backbone, head, "coco")
    assert reported in str(caught.value)
    assert str(caught.value).startswith("head.weights: the weights do not fit head and backbone")
    assert torch.equal(head.hidden.weight, kept)


@torch.no_grad()
def test_norms_do_with_their_own_epsilon_what_they_did_with_the_published_models(cached):
    tensors = content()
    for name, tensor in tensors.items():
        if name.startswith("body.") and name.endswith("running_var"):
            tensor.uniform_(1e-6, 1e-4)
    backbone, _ = cached(tensors)
    load_published(backbone, Layers(3, norm_eps=0.0), "coco")
    exact, _ = cached(tensors)
    load_published(exact, Layers(3), "coco")
    images = torch.rand(2, 3, 32, 32)
    norms = [[m for m in body.modules() if isinstance(m, nn.BatchNorm2d)] for body in (backbone, exact)]
    for norm in norms[1]:
        norm.eps = 0.0
    for level, features in exact.eval()(images).items():
        torch.testing.assert_close(backbone.eval()(images)[level], features, rtol=1e-4, atol=1e-4)
    assert {norm.eps for norm in norms[0]} == {1e-5}
    # Torch trains with them; with an epsilon of 0 it does not.
    backbone.train()(images)
    with pytest.raises(ValueError, match="eps must be positive"):
        exact.train()(images)


def test_a_head_that_names_no_file_is_refused():
    head = Layers(3)
    head.published = None
    with pytest.raises(WeightsError, match="does not say where 'coco' can be had"):
        load_published(TinyBackbone(), head, "coco")


def test_what_cannot_be_downloaded_is_told_at_the_head(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(WeightsError) as error:
        load_published(TinyBackbone(), Layers(3), "coco")
    first, *_, last = str(error.value).splitlines()
    assert first == "head.weights: coco is not on this machine and could not be downloaded"
    assert last == "  put the file there, or leave head.weights out"
