"""The optimizer, its learning rates, and its state as named tensors."""

import json

import pytest
import torch
from safetensors.torch import load, save
from tiny import Policy, loss_of, make_batch, make_model

from ftengine.config_refs import LrRule, OptimizerRef
from ftengine.errors import CheckpointError
from ftengine.freeze import Freezer
from ftengine.optim import build_optimizer, fuses, load_optimizer_state, optimizer_state, set_learning_rates
from ftengine.optimizers import OPTIMIZERS
from ftengine.protocols import Progress


def steps(model, optimizer, first, count):
    for step in range(first, first + count):
        loss_of(model, make_batch(seed=step)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def test_options_reach_the_optimizer():
    optimizer = build_optimizer(make_model(), OPTIMIZERS["sgd"](lr=0.3, weight_decay=0.2, nesterov=True))
    assert type(optimizer) is torch.optim.SGD
    for group in optimizer.param_groups:
        assert (group["lr"], group["base_lr"], group["weight_decay"], group["nesterov"]) == (0.3, 0.3, 0.2, True)


def test_rates_are_set_from_the_base_rate_of_each_group():
    optimizer = build_optimizer(make_model(), OPTIMIZERS["sgd"](lr=0.4), OptimizerRef(backbone_lr_mult=0.1))
    for _ in range(2):  # nothing accumulates
        set_learning_rates(optimizer, 0.5)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.02, 0.02, 0.2])
        assert [group["base_lr"] for group in optimizer.param_groups] == pytest.approx([0.04, 0.04, 0.4])


def test_what_unfreezes_warms_up_by_itself():
    optimizer = build_optimizer(make_model(), OPTIMIZERS["sgd"](lr=1.0))
    early, late, head = optimizer.param_groups
    early["since"], late["since"] = 3, 2

    def rates(epochs, warmup):
        set_learning_rates(optimizer, 0.5, epochs, warmup)
        return [group["lr"] for group in (early, late, head)]

    assert rates(2.0, 2.0) == pytest.approx([0.005, 0.005, 0.5])
    assert rates(2.5, 2.0) == pytest.approx([0.005, 0.5 * (0.01 + 0.99 / 4), 0.5])
    assert rates(3.0, 2.0) == pytest.approx([0.005, 0.5 * (0.01 + 0.99 / 2), 0.5])
    assert rates(4.0, 2.0) == pytest.approx([0.5 * (0.01 + 0.99 / 2), 0.5, 0.5])
    assert rates(7.0, 2.0) == [0.5, 0.5, 0.5]
    assert rates(2.0, 0.0) == [0.5, 0.5, 0.5]
    early["since"] = late["since"] = 0  # never frozen: the schedule's own warm-up is theirs
    assert rates(0.0, 2.0) == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_group_has_what_the_table_of_stages_shows(name):
    options = OPTIMIZERS[name]()
    for group in build_optimizer(make_model(), options).param_groups:
        assert (group["base_lr"], group["weight_decay"]) == (options.lr, options.weight_decay)


PLACES = OptimizerRef(
    backbone_lr_mult=0.5,
    layer_decay=0.7,
    decay="weights",
    rules=(LrRule(params="c2.0.*", lr_mult=2.0), LrRule(params="*.bias", lr_mult=0.3)),
)
"""Every stage in several groups."""


@pytest.mark.parametrize("ref", [OptimizerRef(), PLACES], ids=["one rate", "rates by place"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_continues_from_its_saved_state_bit_for_bit(name, ref):
    options = OPTIMIZERS[name]() if name == "rprop" else OPTIMIZERS[name](weight_decay=0.01)
    model = make_model(learned=("a",))
    Freezer(model, Policy({"c1"})).apply(Progress(0, 1))
    optimizer = build_optimizer(model, options, ref)
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
    fresh = build_optimizer(resumed, options, ref)
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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_on_a_gpu_the_fused_form_is_used_where_torch_has_one(name):
    options = OPTIMIZERS[name]()
    assert fuses(options, torch.device("cuda")) == (name in ("sgd", "adam", "adamw", "adagrad"))
    assert not fuses(options, torch.device("cpu"))
    assert not fuses(OPTIMIZERS["sgd"](dampening=0.1), torch.device("cuda")), "its first step would count when left out"
    if options.has_fused:
        getattr(torch.optim, options.torch_name)(
            [torch.zeros(1, requires_grad=True)], fused=True, **options.arguments()
        )
