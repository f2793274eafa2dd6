"""Parameter groups, learning rates, and the optimizer's state as named tensors."""

import json

import pytest
import torch
from safetensors.torch import load, save
from tiny import Policy, TinyBackbone, loss_of, make_batch, make_model

from ftengine.errors import CheckpointError
from ftengine.freeze import Freezer
from ftengine.optim import build_optimizer, load_optimizer_state, optimizer_state, set_learning_rates
from ftengine.optimizers import OPTIMIZERS
from ftengine.protocols import Progress
from ftengine.schedule import Cosine


def steps(model, optimizer, first, count):
    for step in range(first, first + count):
        loss_of(model, make_batch(seed=step)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def grouped(optimizer):
    return [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]


@pytest.mark.parametrize("learned", [(), ("a",), ("a", "b")])
def test_groups_hold_every_parameter_exactly_once_frozen_or_not(learned):
    model = make_model(("a", "b"), learned)
    Freezer(model, Policy({"c1"})).apply(Progress(0, 1))
    optimizer = build_optimizer(model, OPTIMIZERS["adamw"]())
    assert sorted(grouped(optimizer)) == sorted(map(id, model.parameters()))
    names = ["c1", "c2", "head.a", "head.b", *(f"loss.{task}" for task in learned)]
    assert [group["name"] for group in optimizer.param_groups] == names


def test_a_shared_parameter_is_in_one_group():
    backbone = TinyBackbone()
    backbone.stages["c2"].add_module("tied", backbone.stages["c1"][0])
    model = make_model(backbone=backbone)
    optimizer = build_optimizer(model, OPTIMIZERS["sgd"]())
    assert sorted(grouped(optimizer)) == sorted(map(id, model.parameters()))


def test_heads_that_are_one_module_are_one_group():
    model = make_model(("a", "b"))
    model.heads["b"] = model.heads["a"]
    optimizer = build_optimizer(model, OPTIMIZERS["sgd"]())
    assert [group["name"] for group in optimizer.param_groups] == ["c1", "c2", "head.a"]


def test_a_stage_without_parameters_has_no_group():
    model = make_model()
    model.backbone.stages["c2"] = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 1), torch.nn.ReLU())
    model.backbone.stages["pool"] = torch.nn.AvgPool2d(2)
    assert [group["name"] for group in build_optimizer(model, OPTIMIZERS["sgd"]()).param_groups] == ["c1", "c2", "head"]


def test_options_reach_the_optimizer():
    optimizer = build_optimizer(make_model(), OPTIMIZERS["sgd"](lr=0.3, weight_decay=0.2, nesterov=True))
    assert type(optimizer) is torch.optim.SGD
    for group in optimizer.param_groups:
        assert (group["lr"], group["base_lr"], group["weight_decay"], group["nesterov"]) == (0.3, 0.3, 0.2, True)


def test_rates_are_set_from_the_base_rate_of_each_group():
    optimizer = build_optimizer(make_model(), OPTIMIZERS["sgd"](lr=0.4))
    optimizer.param_groups[0]["base_lr"] = 0.04
    for _ in range(2):  # nothing accumulates
        assert set_learning_rates(optimizer, Cosine(), 5, 10, 5) == pytest.approx(0.5)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.02, 0.2, 0.2])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_group_has_what_the_table_of_stages_shows(name):
    options = OPTIMIZERS[name]()
    for group in build_optimizer(make_model(), options).param_groups:
        assert (group["base_lr"], group["weight_decay"]) == (options.lr, options.weight_decay)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_continues_from_its_saved_state_bit_for_bit(name):
    options = OPTIMIZERS[name]()
    model = make_model(learned=("a",))
    Freezer(model, Policy({"c1"})).apply(Progress(0, 1))
    optimizer = build_optimizer(model, options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    steps(model, optimizer, 0, 3)
    assert not torch.equal(model.state_dict()["heads.a.fc.weight"], before["heads.a.fc.weight"])

    weights = {key: value.clone() for key, value in model.state_dict().items()}
    tensors, plain = optimizer_state(optimizer, model)
    saved, written = save({key: value.contiguous() for key, value in tensors.items()}), json.dumps(plain)
    steps(model, optimizer, 3, 3)

    resumed = make_model(learned=("a",))
    Freezer(resumed, Policy({"c1"})).apply(Progress(0, 1))
    resumed.load_state_dict(weights)
    fresh = build_optimizer(resumed, options)
    load_optimizer_state(fresh, resumed, load(saved), json.loads(written))
    steps(resumed, fresh, 3, 3)
    for key, value in model.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key
    again, plain_again = optimizer_state(fresh, resumed)
    expected, plain_expected = optimizer_state(optimizer, model)
    assert plain_again == plain_expected
    assert again.keys() == expected.keys()
    assert all(torch.equal(again[key], value) and again[key].dtype == value.dtype for key, value in expected.items())


def test_state_is_named_after_the_parameters():
    model = make_model()
    Freezer(model, Policy({"c1", "c2"})).apply(Progress(0, 1))
    optimizer = build_optimizer(model, OPTIMIZERS["sgd"]())
    assert optimizer_state(optimizer, model) == ({}, {})
    steps(model, optimizer, 0, 1)
    tensors, _ = optimizer_state(optimizer, model)
    assert set(tensors) == {"heads.a.fc.weight/momentum_buffer", "heads.a.fc.bias/momentum_buffer"}


def test_state_of_another_model_is_refused():
    model = make_model()
    optimizer = build_optimizer(model, OPTIMIZERS["sgd"]())
    with pytest.raises(CheckpointError, match=r"the optimizer state holds 'heads\.b\.fc\.weight', which the model"):
        load_optimizer_state(optimizer, model, {"heads.b.fc.weight/momentum_buffer": torch.zeros(1)}, {})
