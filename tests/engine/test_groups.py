"""Which learning rate and weight decay each parameter gets, in a network with BatchNorm and in a transformer."""

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from tiny import Policy, TinyBackbone, TinyHead, TinyLoss, loss_of, make_batch, make_model
from torch import nn

from ftengine.config_refs import LrRule, OptimizerRef
from ftengine.errors import FtengineError
from ftengine.freeze import Freezer
from ftengine.groups import parameter_groups, rates, undecayed
from ftengine.model import Model
from ftengine.optim import build_optimizer, set_learning_rates
from ftengine.optimizers import OPTIMIZERS
from ftengine.protocols import Backbone, Progress

LR, DECAY = 0.01, 0.05
ADAMW = OPTIMIZERS["adamw"](lr=LR, weight_decay=DECAY)


class Embedding(nn.Module):
    """Images [B, 3, H, W] to tokens [B, 1 + patches, C]; the parameters are `vit`'s."""

    def __init__(self, vit):
        super().__init__()
        self.patch_embed, self.cls_token, self.pos_embed = vit.patch_embed, vit.cls_token, vit.pos_embed

    def forward(self, images):
        patches = self.patch_embed(images)
        return torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1) + self.pos_embed


class ClassToken(nn.Module):
    def forward(self, tokens):
        return tokens[:, 0, :, None, None]


def make_vit():
    """A model of timm's ViT of four blocks, and the ViT.

    c1 is the embedding, each of c2 … c5 a block, pooled the normalisation after them.
    """
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=4, depth=4, embed_dim=24, num_heads=2, num_classes=2
    )
    stages = {"c1": Embedding(vit)} | {f"c{2 + i}": block for i, block in enumerate(vit.blocks)}
    stages["pooled"] = nn.Sequential(vit.norm, ClassToken())
    backbone = Backbone(stages, {"pooled": 24}, {"pooled": 0})
    return Model(backbone, {"a": TinyHead(24)}, {"a": [TinyLoss()]}, (0.5,) * 3, (0.5,) * 3), vit


def of_parameters(model, ref, options=ADAMW):
    """(rate, weight decay) of each parameter by its name."""
    names = {id(parameter): name for name, parameter in model.parameter_names().items()}
    groups = parameter_groups(model, options, ref)
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def rates_of(model, ref):
    return {name: rate for name, (rate, _) in of_parameters(model, ref).items()}


def decayed(model, ref):
    return {name for name, (_, decay) in of_parameters(model, ref).items() if decay == DECAY}


def by_stage(values):
    """The one value that all parameters of a stage share."""
    stages = {}
    for name, value in values.items():
        assert stages.setdefault(name.split(".")[0], value) == pytest.approx(value)
    return stages


def grouped(groups):
    return [id(parameter) for group in groups for parameter in group["params"]]


def rule(params, **values):
    return LrRule(params=params, **values)


EVERYTHING = OptimizerRef(
    backbone_lr_mult=0.1,
    head_lr_mult=2,
    layer_decay=0.5,
    decay="weights",
    rules=(rule("*.bias", lr_mult=0.3), rule("c2.*", weight_decay=0.2), rule("c1.0.weight", lr_mult=0, weight_decay=0)),
)

# --- the partition -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", [OptimizerRef(), EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("tasks", [("a",), ("a", "b"), ("a", "b", "c")])
@pytest.mark.parametrize("learned", [(), ("a",), ("a", "b")])
def test_groups_hold_every_parameter_exactly_once_frozen_or_not(ref, tasks, learned):
    model = make_model(tasks, learned)
    Freezer(model, Policy({"c1", "c2.0.weight"})).apply(Progress(0, 1))
    groups = build_optimizer(model, OPTIMIZERS["adamw"](), ref).param_groups
    assert sorted(grouped(groups)) == sorted(map(id, model.parameters()))
    assert all(group["params"] for group in groups)
    names = [group["name"] for group in groups]
    assert len(set(names)) == len(names)
    assert list(dict.fromkeys(group["stage"] for group in groups)) == list(model.stage_modules())


def test_a_stage_with_one_group_gives_it_its_name():
    groups = parameter_groups(make_model(("a", "b"), ("a",)), ADAMW, OptimizerRef())
    assert [group["name"] for group in groups] == ["c1", "c2", "head.a", "head.b", "loss.a"]
    assert [group["stage"] for group in groups] == ["c1", "c2", "head.a", "head.b", "loss.a"]
    whole = parameter_groups(make_model(), ADAMW, OptimizerRef(rules=(rule("c1.*", lr_mult=1),)))
    assert [group["name"] for group in whole] == ["c1", "c2", "head"]


def test_a_stage_with_several_says_what_sets_them_apart():
    groups = {group["name"]: group for group in parameter_groups(make_model(learned=("a",)), ADAMW, EVERYTHING)}
    assert {name: len(group["params"]) for name, group in groups.items()} == {
        "c1 (rules[2])": 1,
        "c1 (no decay)": 1,
        "c1 (rules[0], no decay)": 1,
        "c2 (rules[1])": 2,
        "c2 (rules[0], no decay)": 1,
        "head": 1,
        "head (rules[0], no decay)": 1,
        "loss": 1,
    }
    assert {group["stage"] for group in groups.values()} == {"c1", "c2", "head", "loss"}
    assert {group["since"] for group in groups.values()} == {0}


def test_without_weight_decay_there_is_nothing_to_spare():
    plain = OPTIMIZERS["sgd"](weight_decay=0)
    groups = parameter_groups(make_model(), plain, OptimizerRef(decay="weights"))
    assert [group["name"] for group in groups] == ["c1", "c2", "head"]


@pytest.mark.parametrize("ref", [OptimizerRef(), EVERYTHING], ids=["plain", "everything"])
def test_a_shared_parameter_is_in_one_group(ref):
    backbone = TinyBackbone()
    backbone.stages["c2"].add_module("tied", backbone.stages["c1"][0])
    model = make_model(backbone=backbone)
    groups = parameter_groups(model, ADAMW, ref)
    assert sorted(grouped(groups)) == sorted(map(id, model.parameters()))
    stages = {id(parameter): group["stage"] for group in groups for parameter in group["params"]}
    assert stages[id(backbone.stages["c1"][0].weight)] == "c1"


def test_heads_that_are_one_module_are_one_group():
    model = make_model(("a", "b"))
    model.heads["b"] = model.heads["a"]
    assert [group["name"] for group in parameter_groups(model, ADAMW, OptimizerRef())] == ["c1", "c2", "head.a"]


def test_groups_are_the_same_whatever_is_frozen():
    model = make_model()
    freezer = Freezer(model, Policy({"c1", "c2"}, {"c1.0.weight"}, set()))
    freezer.apply(Progress(0, 3))
    optimizer = build_optimizer(model, ADAMW, EVERYTHING)
    before = [(group["name"], list(map(id, group["params"]))) for group in optimizer.param_groups]
    for epoch in (1, 2):
        freezer.apply(Progress(epoch, 3))
        again = parameter_groups(model, ADAMW, EVERYTHING)
        assert [(group["name"], list(map(id, group["params"]))) for group in again] == before


# --- rates by place ------------------------------------------------------------------------------------------------


def test_the_pretrained_part_at_a_tenth_of_the_head_s_rate():
    model = make_model(("a", "b"), ("a",))
    assert by_stage(rates_of(model, OptimizerRef(backbone_lr_mult=0.1))) == pytest.approx(
        {"c1": LR / 10, "c2": LR / 10, "head": LR, "loss": LR}
    )
    assert by_stage(rates_of(model, OptimizerRef(head_lr_mult=10))) == pytest.approx(
        {"c1": LR, "c2": LR, "head": LR * 10, "loss": LR * 10}
    )


def test_layer_decay_counts_stages_from_the_heads():
    ref = OptimizerRef(layer_decay=0.5, backbone_lr_mult=0.1, head_lr_mult=3)
    assert by_stage(rates_of(make_model(), ref)) == pytest.approx(
        {"c2": LR * 0.1 * 0.5, "c1": LR * 0.1 * 0.25, "head": LR * 3}
    )


def test_stages_without_parameters_or_with_norms_alone_do_not_count_as_layers():
    backbone = TinyBackbone()
    backbone.stages["relu"] = nn.ReLU()
    backbone.stages["norm"] = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU())
    backbone.stages["pooled"] = nn.AdaptiveAvgPool2d(1)
    model = make_model(backbone=backbone)
    assert by_stage(rates_of(model, OptimizerRef(layer_decay=0.5, backbone_lr_mult=0.1))) == pytest.approx(
        {"c1": LR * 0.1 * 0.25, "c2": LR * 0.1 * 0.5, "norm": LR * 0.1 * 0.5, "head": LR}
    )


def timm_name(model, vit):
    """timm's name of each of the backbone's parameters, by ours."""
    names = {id(parameter): name for name, parameter in vit.named_parameters()}
    return {ours: names[id(p)] for ours, p in model.parameter_names().items() if not ours.startswith("head.")}


def test_layer_decay_of_a_transformer_is_timm_s():
    model, vit = make_vit()
    ours = timm_name(model, vit)
    names = {id(parameter): name for name, parameter in vit.named_parameters()}
    expected = {
        names[id(parameter)]: LR * group["lr_scale"]
        for group in param_groups_layer_decay(vit, DECAY, layer_decay=0.65)
        for parameter in group["params"]
    }
    found = rates_of(model, OptimizerRef(layer_decay=0.65))
    assert len(set(ours.values())) == len(ours) == len(expected) - 2  # but for timm's own head
    assert {ours[name]: rate for name, rate in found.items() if name in ours} == pytest.approx(
        {name: rate for name, rate in expected.items() if not name.startswith("head.")}
    )
    assert {round(rate / LR / 0.65**depth, 9) for depth, rate in enumerate(sorted(set(found.values()))[::-1])} == {1}
    assert found["pooled.0.weight"] == found["c5.mlp.fc2.weight"] == pytest.approx(LR * 0.65)
    assert found["c1.pos_embed"] == pytest.approx(LR * 0.65**5)


# --- weight decay --------------------------------------------------------------------------------------------------


def test_by_default_everything_decays():
    for model in (make_model(), make_vit()[0]):
        assert decayed(model, OptimizerRef()) == set(model.parameter_names())


def test_neither_biases_nor_norms_of_a_network_with_batchnorm():
    model = make_model(learned=("a",))
    assert decayed(model, OptimizerRef(decay="weights")) == {"c1.0.weight", "c2.0.weight", "head.fc.weight"}


def test_of_a_transformer_what_timm_decays():
    model, vit = make_vit()
    names = {id(parameter): name for name, parameter in vit.named_parameters()}
    spared, rest = param_groups_weight_decay(vit, DECAY, no_weight_decay_list=vit.no_weight_decay())
    assert (spared["weight_decay"], rest["weight_decay"]) == (0, DECAY)
    expected = {names[id(parameter)] for parameter in rest["params"]} - {"head.weight"}
    ours = timm_name(model, vit)
    found = decayed(model, OptimizerRef(decay="weights"))
    assert {ours[name] for name in found if name in ours} == expected
    assert found - set(ours) == {"head.fc.weight"}
    assert {"c1.cls_token", "c1.pos_embed"} <= undecayed(model)


class Odd(nn.Module):
    """Parameters that are told by name or kind, not by their number of dimensions."""

    def __init__(self):
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.layer_scale = nn.Parameter(torch.zeros(4, 1, 1))
        self.register_tokens = nn.Parameter(torch.zeros(1, 4, 8))
        self.norm = nn.LayerNorm((4, 2, 2))
        self.rms = nn.RMSNorm((4, 2))
        self.slope = nn.PReLU(4)
        self.table = nn.Embedding(3, 4)
        self.conv = nn.Conv2d(4, 4, 1)


def test_norms_and_tokens_of_several_dimensions_are_spared_and_tables_of_weights_are_not():
    backbone = TinyBackbone()
    backbone.stages["c2"].add_module("odd", Odd())
    model = make_model(backbone=backbone)
    odd = {name for name in decayed(model, OptimizerRef(decay="weights")) if ".odd." in name}
    assert odd == {"c2.odd.table.weight", "c2.odd.conv.weight"}


# --- rules ---------------------------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_counts_and_takes_the_place_of_the_place():
    ref = OptimizerRef(
        backbone_lr_mult=0.1,
        layer_decay=0.5,
        rules=(
            rule("c2.1.*", lr_mult=0.3),
            rule("c2.*", weight_decay=0.2),
            rule("*.bias", lr_mult=2, weight_decay=0),
            rule("head.*", lr_mult=0),
        ),
    )
    assert of_parameters(make_model(), ref) == {
        "c1.0.weight": pytest.approx((LR * 0.1 * 0.25, DECAY)),
        "c1.1.weight": pytest.approx((LR * 0.1 * 0.25, DECAY)),
        "c1.1.bias": pytest.approx((LR * 2, 0)),
        "c2.0.weight": pytest.approx((LR * 0.1 * 0.5, 0.2)),
        "c2.1.weight": pytest.approx((LR * 0.3, DECAY)),
        "c2.1.bias": pytest.approx((LR * 0.3, DECAY)),
        "head.fc.weight": (0, DECAY),
        "head.fc.bias": pytest.approx((LR * 2, 0)),
    }


def test_a_rule_may_decay_what_is_spared_otherwise():
    ref = OptimizerRef(decay="weights", rules=(rule("c1.1.*", weight_decay=0.2), rule("c2.1.*", lr_mult=3)))
    found = of_parameters(make_model(), ref)
    assert found["c1.1.weight"] == found["c1.1.bias"] == (LR, 0.2)
    assert found["c2.1.weight"] == found["c2.1.bias"] == pytest.approx((LR * 3, 0))


def test_a_rule_reaches_the_losses_and_one_head_of_several():
    model = make_model(("a", "b"), ("b",))
    found = rates_of(model, OptimizerRef(rules=(rule("loss.b.*", lr_mult=5), rule("head.a.*", lr_mult=7))))
    assert {name for name, rate in found.items() if rate == pytest.approx(LR * 5)} == {"loss.b.0.scale"}
    assert {name for name, rate in found.items() if rate == pytest.approx(LR * 7)} == {
        "head.a.fc.weight",
        "head.a.fc.bias",
    }


@pytest.mark.parametrize(
    ("glob", "message"),
    [
        ("c1", "'c1' matches no parameter; for all of c1 write 'c1.*'"),
        ("cc1.*", "'cc1.*' matches no parameter; did you mean 'c1.*'?"),
        ("heads.*.weight", "'heads.*.weight' matches no parameter; did you mean 'head.*.weight'?"),
        ("c2.1.wieght", "'c2.1.wieght' matches no parameter; did you mean 'c2.1.weight'?"),
        ("C1.*", "'C1.*' matches no parameter; did you mean 'c1.*'?"),
        ("layer4.*", "'layer4.*' matches no parameter; their names begin with: c1., c2., head."),
    ],
)
def test_a_rule_that_matches_nothing_names_what_is_nearest(glob, message):
    ref = OptimizerRef(rules=(rule("c1.0.*", lr_mult=1), rule(glob, lr_mult=1)))
    with pytest.raises(FtengineError) as error:
        build_optimizer(make_model(), ADAMW, ref)
    assert str(error.value) == f"optimizer.rules[1].params: {message}"


def test_every_rule_that_nothing_is_left_for_is_named():
    ref = OptimizerRef(
        rules=(
            rule("c1.*", lr_mult=1),
            rule("*.bias", lr_mult=1),
            rule("c1.1.*", lr_mult=1),
            rule("c?.1.bias", weight_decay=0),
            rule("nothing", lr_mult=1),
        )
    )
    with pytest.raises(FtengineError) as error:
        build_optimizer(make_model(), ADAMW, ref)
    first, second, third = str(error.value).splitlines()
    assert first == (
        "optimizer.rules[2].params: all that 'c1.1.*' matches is taken by rules[0] ('c1.*'); the first rule that "
        "matches counts: put the narrower one first"
    )
    assert second.startswith(
        "optimizer.rules[3].params: all that 'c?.1.bias' matches is taken by rules[0] ('c1.*'), rules[1] ('*.bias'); "
    )
    assert third.startswith("optimizer.rules[4].params: 'nothing' matches no parameter")


def test_what_rprop_cannot_follow_is_refused():
    model, rprop = make_model(), OPTIMIZERS["rprop"]()
    with pytest.raises(FtengineError, match=r"optimizer\.rules\[0\]\.weight_decay: rprop has no weight decay"):
        build_optimizer(model, rprop, OptimizerRef(rules=(rule("c1.*", weight_decay=0.1),)))
    with pytest.raises(
        FtengineError, match=r"optimizer\.rules\[1\]\.lr_mult: a learning rate of 0 holds nothing still"
    ):
        build_optimizer(model, rprop, OptimizerRef(rules=(rule("c1.*", weight_decay=0), rule("c2.*", lr_mult=0))))


# --- what a step does ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [make_model, lambda: make_vit()[0]], ids=["batchnorm", "transformer"])
def test_a_step_of_sgd_moves_each_parameter_by_its_own_rate_and_decay(make):
    model = make()
    rules = (
        (rule("*.0.weight", lr_mult=0.7), rule("head.*.bias", lr_mult=0, weight_decay=0.3))
        if make is make_model
        else ()
    )
    ref = OptimizerRef(backbone_lr_mult=0.2, head_lr_mult=3, layer_decay=0.6, decay="weights", rules=rules)
    options = OPTIMIZERS["sgd"](lr=0.5, momentum=0, weight_decay=0.1)
    optimizer = build_optimizer(model, options, ref)
    expected = of_parameters(model, ref, options)
    assert len(set(expected.values())) >= 5
    before = {name: parameter.detach().clone() for name, parameter in model.parameter_names().items()}
    loss_of(model, make_batch()).backward()
    set_learning_rates(optimizer, 0.25)
    optimizer.step()
    for name, parameter in model.parameter_names().items():
        rate, decay = expected[name]
        assert parameter.grad.abs().max() > 0
        move = -0.25 * rate * (parameter.grad + decay * before[name])
        torch.testing.assert_close(parameter.detach(), before[name] + move, rtol=1e-6, atol=1e-8, msg=name)
        assert torch.equal(parameter, before[name]) == (rate == 0), name


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"rprop"}))
def test_a_rate_of_0_holds_still_with_every_optimizer(name):
    model = make_model()
    options = OPTIMIZERS[name](weight_decay=0.1)
    optimizer = build_optimizer(model, options, OptimizerRef(rules=(rule("c1.*", lr_mult=0),)))
    before = {name: parameter.detach().clone() for name, parameter in model.parameter_names().items()}
    for step in range(3):
        loss_of(model, make_batch(seed=step)).backward()
        set_learning_rates(optimizer, 0.5)
        optimizer.step()
        optimizer.zero_grad()
    still = {name for name, parameter in model.parameter_names().items() if torch.equal(parameter, before[name])}
    assert still == {"c1.0.weight", "c1.1.weight", "c1.1.bias"}


# --- the table -----------------------------------------------------------------------------------------------------


def test_rates_and_decays_to_be_shown():
    model = make_model(learned=("a",))
    ref = OptimizerRef(backbone_lr_mult=0.1, decay="weights", rules=(rule("c2.1.*", lr_mult=2),))
    groups = build_optimizer(model, ADAMW, ref).param_groups
    assert rates(groups) == {
        "c1": ("1.00e-03", "0.00e+00 … 5.00e-02"),
        "c2": ("1.00e-03 … 2.00e-02", "0.00e+00 … 5.00e-02"),
        "head": ("1.00e-02", "0.00e+00 … 5.00e-02"),
        "loss": ("1.00e-02", "0.00e+00"),
    }
    set_learning_rates(build_optimizer(model, ADAMW, ref), 0.5)
    assert rates(groups)["head"][0] == "1.00e-02"  # before any schedule


def test_only_what_trains_is_shown():
    model = make_model()
    Freezer(model, Policy({"c1", "c2.0.weight"})).apply(Progress(0, 1))
    ref = OptimizerRef(decay="weights", rules=(rule("c2.0.*", lr_mult=3),))
    assert rates(parameter_groups(model, ADAMW, ref)) == {
        "c2": ("1.00e-02", "0.00e+00"),
        "head": ("1.00e-02", "0.00e+00 … 5.00e-02"),
    }
