"""What a policy names does not train, and its normalisation layers stay in eval mode."""

import pytest
import torch
from tiny import Policy, TinyBackbone, loss_of, make_batch, make_model
from torch import nn

from ftengine.errors import FtengineError
from ftengine.freeze import Freezer, freeze_context
from ftengine.optim import build_optimizer
from ftengine.optimizers import OPTIMIZERS
from ftengine.protocols import Progress


def trainable(model):
    return {name for name, parameter in model.backbone.stages.named_parameters() if parameter.requires_grad}


def apply(model, *by_epoch, epoch=0):
    freezer = Freezer(model, Policy(*by_epoch))
    freezer.apply(Progress(epoch, 10))
    return freezer


def test_a_policy_sees_parameters_by_stage():
    assert freeze_context(make_model(), 1).stages == {
        "c1": ("c1.0.weight", "c1.1.weight", "c1.1.bias"),
        "c2": ("c2.0.weight", "c2.1.weight", "c2.1.bias"),
    }


def test_a_stage_a_parameter_and_nothing():
    model = make_model()
    apply(model, set())
    assert trainable(model) == {name for names in freeze_context(model, 1).stages.values() for name in names}
    assert model.frozen_norms == []
    apply(model, {"c1"})
    assert trainable(model) == {"c2.0.weight", "c2.1.weight", "c2.1.bias"}
    apply(model, {"c1.0.weight", "c2.1.bias"})
    assert trainable(model) == {"c1.1.weight", "c1.1.bias", "c2.0.weight", "c2.1.weight"}
    assert all(parameter.requires_grad for parameter in model.heads.parameters())


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(6),
        nn.SyncBatchNorm(6),
        nn.InstanceNorm2d(6, affine=True),
        nn.GroupNorm(2, 6),
        nn.LayerNorm([6, 2, 2]),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_norms_of_a_frozen_stage_stay_in_eval_however_deep(norm):
    backbone = TinyBackbone()
    backbone.stages["c2"].add_module("block", nn.Sequential(nn.Identity(), nn.Sequential(norm, nn.Dropout())))
    model = make_model(backbone=backbone)
    apply(model, {"c2"})
    for _ in range(2):
        model.train()
        assert not norm.training
        assert backbone.stages["c2"].block[1][1].training  # only norms
        assert backbone.stages["c1"][1].training
        model.eval()
        assert not norm.training


def test_a_norm_stays_in_eval_only_if_all_its_parameters_are_frozen():
    model = make_model()
    norm = model.backbone.stages["c1"][1]
    apply(model, {"c1.1.weight"})
    assert model.frozen_norms == []
    apply(model, {"c1.1.weight", "c1.1.bias"})
    assert model.frozen_norms == [norm]


def test_a_norm_without_parameters_follows_its_stage():
    backbone = TinyBackbone()
    backbone.stages["c1"].add_module("plain", nn.BatchNorm2d(4, affine=False))
    model = make_model(backbone=backbone)
    apply(model, {"c1.0.weight", "c1.1.weight", "c1.1.bias"})
    assert model.frozen_norms == [backbone.stages["c1"][1]]
    apply(model, {"c1"})
    assert model.frozen_norms == [backbone.stages["c1"][1], backbone.stages["c1"].plain]


def test_statistics_of_frozen_norms_do_not_move_and_the_others_do():
    model = make_model()
    apply(model, {"c1"})
    model.train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(make_batch(), ["a"])
    moved = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    assert moved == {f"backbone.stages.c2.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


def test_what_is_frozen_has_no_gradient_and_keeps_its_value():
    model = make_model()
    freezer = Freezer(model, Policy(set(), {"c1"}))
    freezer.apply(Progress(0, 2))
    optimizer = build_optimizer(model, OPTIMIZERS["adamw"](lr=0.1, weight_decay=0.1))
    loss_of(model, make_batch()).backward()
    freezer.apply(Progress(1, 2))
    assert all(parameter.grad is None for parameter in model.backbone.stages["c1"].parameters())
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer.step()
    same = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert same == {f"backbone.stages.{name}" for name in freeze_context(model, 1).stages["c1"]}


def test_unfreezing_flips_flags_and_says_so_and_leaves_the_optimizer_alone():
    model = make_model()
    freezer = Freezer(model, Policy({"c1", "c2"}, {"c1", "c2"}, {"c1"}, set()))
    optimizer = build_optimizer(model, OPTIMIZERS["sgd"]())
    groups = [list(map(id, group["params"])) for group in optimizer.param_groups]
    changes = [freezer.apply(Progress(epoch, 4)) for epoch in range(4)]
    assert changes == [True, False, True, True]
    assert [list(map(id, group["params"])) for group in optimizer.param_groups] == groups
    assert len(trainable(model)) == 6
    assert model.frozen_norms == []
    assert all(module.training for module in model.modules())


def test_the_first_answer_counts_as_a_change_even_if_it_is_nothing():
    freezer = Freezer(make_model(), Policy(set()))
    assert freezer.apply(Progress(0, 1))
    assert not freezer.apply(Progress(0, 1))


def test_a_parameter_that_came_frozen_stays_so():
    backbone = TinyBackbone()
    backbone.stages["c1"][0].weight.requires_grad_(False)
    model = make_model(backbone=backbone)
    freezer = apply(model, {"c1"}, set())
    freezer.apply(Progress(1, 10))
    assert "c1.0.weight" not in trainable(model)
    assert "c1.1.weight" in trainable(model)


def test_applying_keeps_the_model_s_mode():
    model = make_model().eval()
    apply(model, {"c1"})
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("name", "near"),
    [("c9", "known: c1, c1.0.weight"), ("c1.0.wieght", "c1.0.weight"), ("head", "known: c1, c1.0.weight")],
)
def test_a_name_that_does_not_exist_is_refused(name, near):
    with pytest.raises(
        FtengineError, match=f"the freeze policy Policy froze '{name}': unknown stage or parameter"
    ) as e:
        apply(make_model(), {name})
    assert near in str(e.value)


@pytest.mark.parametrize("frozen", ["c1", "c2", "c2.tied.weight"])
def test_a_parameter_that_two_stages_share_is_frozen_if_either_is(frozen):
    backbone = TinyBackbone()
    backbone.stages["c2"].add_module("tied", backbone.stages["c1"][0])
    model = make_model(backbone=backbone)
    apply(model, {frozen})
    assert not backbone.stages["c1"][0].weight.requires_grad
    apply(model, set())
    assert backbone.stages["c1"][0].weight.requires_grad
