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
    [("c9", "known: c1, c1.0.weight"), ("c1.0.wieght", "c1.0.weight"), ("loss", "known: c1, c1.0.weight")],
)
def test_a_name_that_does_not_exist_is_refused(name, near):
    with pytest.raises(
        FtengineError, match=f"the freeze policy Policy froze '{name}': unknown stage, head or parameter"
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


# --- heads, losses, and what came frozen ---------------------------------------------------------------------------


def test_a_policy_sees_heads_and_norms_and_no_losses():
    model = make_model(("a", "b"), learned=("a",))
    model.heads["b"].add_module("norm", nn.LayerNorm(6))
    context = freeze_context(model, 7)
    assert context.heads == {
        "head.a": ("head.a.fc.weight", "head.a.fc.bias"),
        "head.b": ("head.b.fc.weight", "head.b.fc.bias", "head.b.norm.weight", "head.b.norm.bias"),
    }
    assert context.norms == {
        f"{norm}.{name}" for norm in ("c1.1", "c2.1", "head.b.norm") for name in ("weight", "bias")
    }
    assert context.epochs == 7


def test_heads_freeze_as_a_whole_and_by_parameter_and_unfreeze():
    model = make_model(("a", "b"))
    freezer = Freezer(model, Policy({"head.a", "head.b.fc.bias"}, set()))
    loss_of(model, make_batch(tasks=("a", "b")), ("a", "b")).backward()
    freezer.apply(Progress(0, 2))
    held = {name for name, parameter in model.heads.named_parameters() if not parameter.requires_grad}
    assert held == {"a.fc.weight", "a.fc.bias", "b.fc.bias"}
    assert all((p.grad is None) == (name in held) for name, p in model.heads.named_parameters())
    freezer.apply(Progress(1, 2))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_norms_of_a_frozen_head_stay_in_eval():
    model = make_model()
    norm = model.heads["a"].norm = nn.BatchNorm1d(6)
    plain = model.heads["a"].plain = nn.BatchNorm1d(6, affine=False)
    apply(model, {"head.norm.weight", "head.norm.bias"})
    assert model.frozen_norms == [norm]
    apply(model, {"head"})
    assert model.frozen_norms == [norm, plain]


def test_what_losses_learn_always_trains():
    model = make_model(learned=("a",))
    apply(model, {"c1", "c2", "head.fc.bias"})
    assert model.losses["a"][0].scale.requires_grad
    with pytest.raises(FtengineError, match="froze 'loss': unknown"):
        apply(model, {"loss"})


def test_a_head_s_parameter_that_came_frozen_stays_so():
    model = make_model()
    model.heads["a"].fc.bias.requires_grad_(False)
    freezer = apply(model, {"head"}, set())
    freezer.apply(Progress(1, 10))
    assert not model.heads["a"].fc.bias.requires_grad
    assert model.heads["a"].fc.weight.requires_grad


# --- the mode of norms ---------------------------------------------------------------------------------------------


def test_frozen_norms_in_train_mode_go_on_learning_statistics():
    model = make_model()
    Freezer(model, Policy({"c1", "c2"}), "train").apply(Progress(0, 1))
    assert model.frozen_norms == []
    assert trainable(model) == set()
    model.train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(make_batch(), ["a"])
    moved = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    names = ("running_mean", "running_var", "num_batches_tracked")
    assert moved == {f"backbone.stages.{stage}.1.{name}" for stage in ("c1", "c2") for name in names}


# --- nothing trains ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by_epoch", "epoch"),
    [([{"c1", "c2", "head"}], 0), ([set(), {"c1"}, {"c1", "c2", "head.fc.weight", "head.fc.bias"}], 2)],
)
def test_a_policy_that_ever_freezes_everything_is_refused_at_once(by_epoch, epoch):
    model = make_model(learned=("a",))
    message = f"nothing would train in epoch {epoch + 1}: .*`freeze: all` trains the heads"
    with pytest.raises(FtengineError, match=message):
        apply(model, *by_epoch)
    assert len(trainable(model)) == 6, "nothing was frozen"
    with pytest.raises(FtengineError, match=f"nothing would train in epoch {epoch + 1}"):
        Freezer(model, Policy(*by_epoch)).check(3)
    Freezer(model, Policy(*by_epoch)).check(epoch)


def test_a_probe_without_anything_to_train_in_the_head_is_refused():
    model = make_model()
    model.heads["a"].requires_grad_(False)
    with pytest.raises(FtengineError, match="nothing would train in epoch 1"):
        apply(model, {"c1", "c2"})


def test_a_name_that_a_later_epoch_gets_wrong_is_refused_at_once():
    with pytest.raises(FtengineError, match="froze 'c9'"):
        apply(make_model(), set(), {"c9"})


# --- since when, and what is held ----------------------------------------------------------------------------------

BOTH, ONE = {"c1", "c2"}, {"c1"}


@pytest.mark.parametrize(
    ("by_epoch", "expected"),
    [
        ([set()], {"c1": 0, "c2": 0}),
        ([BOTH, ONE, ONE, set()], {"c1": 3, "c2": 1}),
        ([set(), BOTH, set(), set()], {"c1": 2, "c2": 2}),
        ([BOTH, set(), ONE, ONE], {"c1": None, "c2": 1}),
        ([set(), ONE, BOTH, {"c2"}], {"c1": 3, "c2": None}),
    ],
)
def test_since_when_each_parameter_trains_is_the_same_for_a_run_that_begins_in_the_middle(by_epoch, expected):
    model, resumed = make_model(), make_model()
    freezer = Freezer(model, Policy(*by_epoch))
    for epoch in range(4):
        freezer.apply(Progress(epoch, 4))
    begun = Freezer(resumed, Policy(*by_epoch))
    begun.apply(Progress(3, 4))
    for made, own in ((freezer, model), (begun, resumed)):
        stages = {stage: {made.since.get(id(p)) for p in m.parameters()} for stage, m in own.backbone.stages.items()}
        assert stages == {stage: {epoch} for stage, epoch in expected.items()}
        assert {made.since[id(p)] for p in own.heads.parameters()} == {0}


def test_single_parameters_have_their_own_time():
    model = make_model()
    freezer = Freezer(model, Policy({"c1"}, {"c1.0.weight"}, set()))
    for epoch in range(3):
        freezer.apply(Progress(epoch, 3))
    by_name = {name: freezer.since[id(parameter)] for name, parameter in model.backbone.stages["c1"].named_parameters()}
    assert by_name == {"0.weight": 2, "1.weight": 1, "1.bias": 1}


class Counting(nn.Module):
    """A stage's other buffers: a count that training moves, and one that is not saved."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x):
        return x


def holding(frozen, frozen_norm="eval"):
    backbone = TinyBackbone()
    backbone.stages["c1"].add_module("extra", Counting())
    backbone.stages["c2"].add_module("plain", nn.BatchNorm2d(6, affine=False))
    model = make_model(backbone=backbone)
    model.heads["a"].add_module("extra", Counting())
    freezer = Freezer(model, Policy(frozen), frozen_norm)
    freezer.apply(Progress(0, 1))
    held = freezer.held()
    state = model.state_dict(keep_vars=True)
    assert all(tensor is state[name] for name, tensor in held.items())
    return {name.removeprefix("backbone.stages.").removeprefix("heads.a.") for name in held}


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
C1 = {"c1.0.weight", "c1.1.weight", "c1.1.bias"}
C1_NORM = {f"c1.1.{name}" for name in STATISTICS}


@pytest.mark.parametrize(
    ("frozen", "frozen_norm", "expected"),
    [
        (set(), "eval", set()),
        ({"c1"}, "eval", C1 | C1_NORM | {"c1.extra.count"}),
        ({"c1"}, "train", C1 | {"c1.extra.count"}),
        ({"c1.1.weight", "c1.1.bias"}, "eval", {"c1.1.weight", "c1.1.bias"} | C1_NORM),
        ({"c1.1.weight"}, "eval", {"c1.1.weight"}),
        (C1, "eval", C1 | C1_NORM | {"c1.extra.count"}),
        ({"c2.0.weight", "c2.1.weight"}, "eval", {"c2.0.weight", "c2.1.weight"}),
        (
            {"c2"},
            "eval",
            {"c2.0.weight", "c2.1.weight", "c2.1.bias"}
            | {f"c2.{norm}.{name}" for norm in ("1", "plain") for name in STATISTICS},
        ),
        ({"head"}, "eval", {"fc.weight", "fc.bias", "extra.count"}),
        ({"head.fc.bias"}, "eval", {"fc.bias"}),
    ],
)
def test_what_is_held(frozen, frozen_norm, expected):
    assert holding(frozen, frozen_norm) == expected


def test_a_stage_without_parameters_is_held_if_it_is_named():
    backbone = TinyBackbone()
    backbone.stages["c2"][1] = nn.BatchNorm2d(6, affine=False)
    backbone.stages["c2"][0] = nn.MaxPool2d(2)
    backbone.stages["c2"].add_module("extra", Counting())
    model = make_model(backbone=backbone)
    for frozen, held in ((C1, False), (C1 | {"c2"}, True)):
        freezer = Freezer(model, Policy(frozen))
        freezer.apply(Progress(0, 1))
        assert ("backbone.stages.c2.extra.count" in freezer.held()) == held
        assert ("backbone.stages.c2.1.running_mean" in freezer.held()) == held


def test_what_came_frozen_is_held_whatever_the_policy_says():
    backbone = TinyBackbone()
    backbone.stages["c1"][0].weight.requires_grad_(False)
    model = make_model(backbone=backbone)
    freezer = Freezer(model, Policy(set()))
    freezer.apply(Progress(0, 1))
    assert freezer.held().keys() == {"backbone.stages.c1.0.weight"}


def saved_bytes(model):
    """Of the tensors that autograd saves for a training step's way back, each storage once."""
    held = {}

    def pack(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(model, make_batch(32))
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def test_no_graph_is_kept_for_what_is_frozen():
    model = make_model()
    whole = saved_bytes(model)
    apply(model, {"c1"})
    assert saved_bytes(model) < whole
    apply(model, {"c1", "c2"})
    assert saved_bytes(model) < whole / 10
