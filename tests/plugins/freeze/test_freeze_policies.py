"""The freeze policies: what each freezes, and what each refuses."""

import pytest
from pydantic import ValidationError

from ftengine.errors import FtengineError
from ftengine.protocols import FreezeContext, Progress
from ftengine_freeze import plugin, policies
from ftengine_freeze.plugin import PatternsOptions, StagesOptions

STAGES = {
    "c1": ["c1.conv1.weight", "c1.bn1.weight", "c1.bn1.bias"],
    "c2": ["c2.0.conv1.weight", "c2.0.bn1.weight"],
    "c3": ["c3.0.conv1.weight"],
    "c4": [],
}
CONTEXT = FreezeContext(stages=STAGES)


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
        ("c2", "'c2' matches no parameter of the backbone; for the whole stage write 'c2.*'"),
        ("c22.*", "'c22.*' matches no parameter of the backbone; did you mean 'c2.*'?"),
        ("c1.conv1.weigth", "did you mean 'c1.conv1.weight'?"),
        ("*.BN1.*", "matches no parameter"),
        ("zzz", "their names begin with: c1., c2., c3., c4."),
    ],
)
def test_a_glob_that_matches_nothing_is_an_error(glob, message):
    with pytest.raises(FtengineError) as error:
        policies.patterns(PatternsOptions(patterns=("c1.*", glob)), CONTEXT)
    assert str(error.value).startswith("freeze.patterns: ")
    assert message in str(error.value)
    assert "'c1.*' matches no" not in str(error.value)


def test_every_registered_policy_has_its_factory():
    specs = list(plugin.register_freeze_policies())
    assert [spec.name for spec in specs] == ["none", "all", "stages", "patterns"]
    for spec in specs:
        module, _, function = spec.factory.partition(":")
        assert module == "ftengine_freeze.policies"
        assert callable(getattr(policies, function))
