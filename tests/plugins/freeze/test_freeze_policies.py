"""The freeze policies that stay as they are: what each freezes, and what each refuses."""

import importlib

import pytest
from pydantic import ValidationError

from ftengine.errors import FtengineError
from ftengine.protocols import FreezeContext, Progress
from ftengine_freeze import plugin, policies
from ftengine_freeze.plugin import PatternsOptions, StagesOptions, SurgicalOptions

STAGES = {
    "c1": ["c1.conv1.weight", "c1.bn1.weight", "c1.bn1.bias"],
    "c2": ["c2.0.conv1.weight", "c2.0.bn1.weight"],
    "c3": ["c3.0.conv1.weight"],
    "c4": [],
}
HEADS = {"head": ["head.fc.weight", "head.fc.bias"]}
NORMS = frozenset({"c1.bn1.weight", "c1.bn1.bias", "c2.0.bn1.weight", "head.fc.bias"})
CONTEXT = FreezeContext(STAGES, HEADS, NORMS)


def frozen(policy, epoch=0):
    return policy.frozen(STAGES, Progress(epoch=epoch, epochs=3))


@pytest.mark.parametrize(
    ("factory", "options", "expected"),
    [
        (policies.none, plugin.Options(), set()),
        (policies.all_stages, plugin.Options(), {"c1", "c2", "c3", "c4"}),
        (policies.stages, StagesOptions(through="c1"), {"c1"}),
        (policies.stages, StagesOptions(through="c3"), {"c1", "c2", "c3"}),
        (policies.stages, StagesOptions(only=("c3", "c1")), {"c1", "c3"}),
        (policies.patterns, PatternsOptions(patterns=("c2.*",)), {"c2.0.conv1.weight", "c2.0.bn1.weight"}),
        (
            policies.patterns,
            PatternsOptions(patterns=("*.bn1.*", "c3.0.conv[12].weight")),
            {"c1.bn1.weight", "c1.bn1.bias", "c2.0.bn1.weight", "c3.0.conv1.weight"},
        ),
        (policies.patterns, PatternsOptions(patterns=("head.*",)), {"head.fc.weight", "head.fc.bias"}),
        (policies.patterns, PatternsOptions(patterns=("*.bias",)), {"c1.bn1.bias", "head.fc.bias"}),
        (policies.surgical, SurgicalOptions(stages=("c1", "c3")), {"c2", "c4"}),
        (policies.surgical, SurgicalOptions(block="first"), {"c2", "c3", "c4"}),
        (policies.surgical, SurgicalOptions(block="middle"), {"c1", "c3", "c4"}),
        (policies.surgical, SurgicalOptions(block="last"), {"c1", "c2", "c4"}),
        (policies.surgical, SurgicalOptions(), {"c1", "c2", "c4"}),
        (
            policies.bias_only,
            plugin.Options(),
            {"c1.conv1.weight", "c1.bn1.weight", "c2", "c3", "c4"},
        ),
        (policies.norm_only, plugin.Options(), {"c1.conv1.weight", "c2.0.conv1.weight", "c3", "c4"}),
    ],
)
def test_freezes(factory, options, expected):
    policy = factory(options, CONTEXT)
    assert frozen(policy) == expected
    assert frozen(policy, epoch=2) == expected, "the same at every epoch"


def test_a_result_can_be_changed_without_changing_the_policy():
    policy = policies.stages(StagesOptions(through="c2"), CONTEXT)
    frozen(policy).clear()
    assert frozen(policy) == {"c1", "c2"}


@pytest.mark.parametrize(
    ("options", "found"), [({}, "neither"), ({"through": "c1", "only": ["c2"]}, "both"), ({"through": None}, "neither")]
)
def test_stages_takes_exactly_one_of_through_and_only(options, found):
    with pytest.raises(ValidationError, match=f"exactly one of 'through' and 'only', got {found}"):
        StagesOptions.model_validate(options)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (StagesOptions, {"only": []}),
        (StagesOptions, {"only": [""]}),
        (StagesOptions, {"trough": "c1"}),
        (PatternsOptions, {}),
        (PatternsOptions, {"patterns": []}),
        (PatternsOptions, {"patterns": "c1.*"}),
        (SurgicalOptions, {"stages": []}),
        (SurgicalOptions, {"block": "second"}),
        (SurgicalOptions, {"stages": ["c1"], "block": "last"}),
    ],
)
def test_options_are_validated(model, options):
    with pytest.raises(ValidationError):
        model.model_validate(options)


def test_an_unknown_stage_is_named_with_the_nearest():
    with pytest.raises(FtengineError, match=r"freeze\.through: unknown stage 'c33'; did you mean 'c3'\?"):
        policies.stages(StagesOptions(through="c33"), CONTEXT)


def test_all_unknown_stages_are_named_together():
    with pytest.raises(FtengineError) as error:
        policies.stages(StagesOptions(only=("stem", "c1", "layer9")), CONTEXT)
    assert str(error.value).startswith("freeze.only: unknown stage 'stem'")
    assert "'layer9'" in str(error.value)
    assert str(error.value).endswith("(the backbone's stages: c1, c2, c3, c4)")


@pytest.mark.parametrize(
    ("glob", "message"),
    [
        ("c2", "'c2' matches no parameter of the backbone or the heads; for all of it write 'c2.*'"),
        ("c22.*", "'c22.*' matches no parameter of the backbone or the heads; did you mean 'c2.*'?"),
        ("heda.*", "did you mean 'head.*'?"),
        ("c1.conv1.weigth", "did you mean 'c1.conv1.weight'?"),
        ("*.BN1.*", "matches no parameter"),
        ("zzz", "their names begin with: c1., c2., c3., c4., head."),
    ],
)
def test_a_glob_that_matches_nothing_is_an_error(glob, message):
    with pytest.raises(FtengineError) as error:
        policies.patterns(PatternsOptions(patterns=("c1.*", glob)), CONTEXT)
    assert str(error.value).startswith("freeze.patterns: ")
    assert message in str(error.value)
    assert "'c1.*' matches no" not in str(error.value)


@pytest.mark.parametrize(
    ("count", "blocks"),
    [
        (3, ["1", "2", "3"]),
        (4, ["12", "3", "4"]),
        (5, ["12", "34", "5"]),
        (6, ["12", "34", "56"]),
        (8, ["123", "456", "78"]),
    ],
)
def test_the_blocks_of_surgical_are_as_even_as_can_be_and_the_earlier_ones_longer(count, blocks):
    context = FreezeContext({str(i): [f"{i}.weight"] for i in range(1, count + 1)})
    trained = [
        "".join(
            name
            for name in context.stages
            if name not in policies.surgical(SurgicalOptions(block=block), context).names
        )
        for block in ("first", "middle", "last")
    ]
    assert trained == blocks


@pytest.mark.parametrize(
    ("factory", "options", "stages", "message"),
    [
        (
            policies.surgical,
            SurgicalOptions(stages=("c33",)),
            STAGES,
            "freeze.stages: unknown stage 'c33'; did you mean",
        ),
        (
            policies.surgical,
            SurgicalOptions(stages=("c1", "c4")),
            STAGES,
            "freeze.stages: nothing in c4 can train; stages with parameters: c1, c2, c3",
        ),
        (
            policies.surgical,
            SurgicalOptions(),
            {"a": ["a.weight"], "b": ["b.weight"], "pool": []},
            "freeze.block: a, b cannot be cut into three blocks; name the stages that train in freeze.stages",
        ),
        (policies.bias_only, plugin.Options(), {"a": ["a.weight", "a.bias.scale"]}, "bias_only finds no biases"),
        (policies.norm_only, plugin.Options(), {"a": ["a.weight"]}, "norm_only finds no normalisation layers"),
    ],
)
def test_what_would_train_nothing_is_refused(factory, options, stages, message):
    with pytest.raises(FtengineError) as error:
        factory(options, FreezeContext(stages))
    assert message in str(error.value)


def test_biases_by_other_names():
    context = FreezeContext(
        {"a": ["a.attn.in_proj_bias", "a.q_bias", "a.bias", "a.relative_position_bias_table", "a.w"]}
    )
    assert policies.bias_only(plugin.Options(), context).names == {"a.relative_position_bias_table", "a.w"}


def test_every_registered_policy_has_its_factory():
    specs = list(plugin.register_freeze_policies())
    names = ["none", "all", "stages", "patterns", "surgical", "bias_only", "norm_only", "gradual", "lp_ft", "auto"]
    assert [spec.name for spec in specs] == names
    for spec in specs:
        module, _, function = spec.factory.partition(":")
        assert module.startswith("ftengine_freeze.")
        assert callable(getattr(importlib.import_module(module), function))
