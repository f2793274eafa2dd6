"""The shared backbone with its heads: normalisation, forward, batches in parts, and the table of stages."""

import io
import pickle
from dataclasses import replace

import pytest
import torch
from tiny import Policy, TinyBackbone, make_batch, make_model
from torch import nn

from ftengine.freeze import Freezer
from ftengine.model import summarise
from ftengine.protocols import Progress


def test_images_are_normalised_as_torchvision_does_it():
    model = make_model()
    batch = make_batch(2)
    images = batch.images
    expected = (images.permute(0, 3, 1, 2).double() / 255 - 0.5) / 0.25
    made = model.normalise(batch)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made.double(), expected, atol=1e-6, rtol=1e-6)
    assert images.dtype == torch.uint8


def test_only_the_asked_tasks_run_and_get_their_own_targets():
    model = make_model(("a", "b"))
    batch = make_batch(4, ("a", "b"))
    del batch.targets["b"]
    assert list(model(batch, ["a"]).results) == ["a"]
    both = model(batch, ["a", "b"]).results
    assert both["a"].batch.targets is batch.targets["a"]
    assert both["b"].batch.targets == {}
    assert both["a"].batch.images is both["b"].batch.images
    assert both["a"].output["logits"].shape == (4, 2)


def test_a_batch_in_parts_is_the_batch():
    batch = make_batch(6)
    parts = list(batch.split(3))
    assert [part.ids for part in parts] == [["s0", "s1"], ["s2", "s3"], ["s4", "s5"]]
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    assert torch.equal(torch.cat([part.targets["a"]["label"] for part in parts]), batch.targets["a"]["label"])
    assert [len(part.frames) for part in parts] == [2, 2, 2]


class CountingPickler(pickle.Pickler):
    def reducer_override(self, value):
        self.tensors = getattr(self, "tensors", 0) + isinstance(value, torch.Tensor)
        return NotImplemented


@pytest.mark.parametrize("size", [1, 5, 40])
def test_a_batch_goes_through_a_process_boundary_as_a_few_tensors_whatever_its_size(size):
    batch = make_batch(size)
    boxes = [torch.rand(i % 3, 4, dtype=torch.float64) for i in range(size)]
    own = {"boxes": boxes, "crowd": [torch.rand(i % 3) > 0.5 for i in range(size)]}
    batch = replace(batch, targets=batch.targets | {"b": own}, truths={"a": batch.targets["a"], "b": dict(own)})
    stream = io.BytesIO()
    pickler = CountingPickler(stream)
    pickler.dump(batch)
    assert pickler.tensors == 6  # the images, the labels, and twice two lists
    back = pickle.loads(stream.getvalue())
    assert torch.equal(back.images, batch.images)
    assert (back.ids, back.frames) == (batch.ids, batch.frames)
    assert back.truths["a"] is back.targets["a"]
    assert torch.equal(back.targets["a"]["label"], batch.targets["a"]["label"])
    for made in (back.targets["b"], back.truths["b"]):
        for name, tensors in own.items():
            assert [tensor.dtype for tensor in made[name]] == [tensor.dtype for tensor in tensors]
            assert all(torch.equal(one, other) for one, other in zip(made[name], tensors, strict=True))


def test_modules_are_named_head_for_one_task_and_head_dot_task_for_several():
    assert list(make_model().stage_modules()) == ["c1", "c2", "head"]
    assert list(make_model(learned=("a",)).stage_modules()) == ["c1", "c2", "head", "loss"]
    assert list(make_model(("a", "b"), ("b",)).stage_modules()) == ["c1", "c2", "head.a", "head.b", "loss.b"]


def test_the_table_of_stages():
    model = make_model(learned=("a",))
    Freezer(model, Policy({"c1", "c2.0.weight"})).apply(Progress(0, 1))
    rows = [(row.name, row.parameters, row.trainable, row.norm) for row in summarise(model)]
    assert rows == [
        ("c1", 4 * 3 * 9 + 8, 0, "eval"),
        ("c2", 6 * 4 * 9 + 12, 12, "train"),
        ("head", 14, 14, "-"),
        ("loss", 1, 1, "-"),
    ]
    assert sum(row.parameters for row in summarise(model)) == sum(p.numel() for p in model.parameters())


def test_a_stage_with_norms_in_both_modes_is_mixed():
    backbone = TinyBackbone()
    backbone.stages["c2"].add_module("extra", nn.BatchNorm2d(6))
    model = make_model(backbone=backbone)
    Freezer(model, Policy({"c2.extra.weight", "c2.extra.bias"})).apply(Progress(0, 1))
    assert [row.norm for row in summarise(model)] == ["train", "mixed", "-"]


def test_a_shared_parameter_is_the_first_stage_s():
    backbone = TinyBackbone()
    backbone.stages["c2"].add_module("tied", backbone.stages["c1"][0])
    model = make_model(backbone=backbone)
    stages = model.stage_parameters()
    everything = [id(parameter) for parameters in stages.values() for parameter in parameters]
    assert sorted(everything) == sorted(map(id, model.parameters()))
    assert id(backbone.stages["c1"][0].weight) in map(id, stages["c1"])
    assert sum(row.parameters for row in summarise(model)) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("mode", [True, False])
def test_train_sets_every_mode_but_the_frozen_norms(mode):
    model = make_model()
    model.frozen_norms = [model.backbone.stages["c1"][1]]
    model.train(mode)
    modes = {name: module.training for name, module in model.named_modules()}
    assert modes.pop("backbone.stages.c1.1") is False
    assert set(modes.values()) == {mode}
