"""The policy that chooses stages by their relative gradients."""

import json

import pytest
from pydantic import ValidationError

from ftengine.errors import FtengineError
from ftengine.protocols import FreezeContext, Progress
from ftengine_freeze.auto import auto
from ftengine_freeze.plugin import AutoOptions

STAGES = {"c1": ["c1.weight"], "c2": ["c2.weight"], "c3": ["c3.weight"], "pooled": []}
MEASURED = {"c1": 0.02, "c2": 0.5, "c3": 0.26}


def make(epochs=4, stages=STAGES, **options):
    return auto(AutoOptions(**options), FreezeContext(stages, epochs=epochs))


def trains(policy, epoch=0):
    return STAGES.keys() - policy.frozen(STAGES, Progress(epoch, 4))


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({}, {"c2"}),
        ({"train": 2}, {"c2", "c3"}),
        ({"train": 3}, {"c1", "c2", "c3"}),
        ({"threshold": 1.0}, {"c2"}),
        ({"threshold": 0.52}, {"c2", "c3"}),
        ({"threshold": 0.53}, {"c2"}),
        ({"threshold": 0.04}, {"c1", "c2", "c3"}),
    ],
)
def test_the_largest_relative_gradients_train(options, chosen):
    policy = make(**options)
    assert trains(policy) == set()
    policy.measured(MEASURED)
    assert trains(policy) == chosen


def test_it_says_what_it_chose_and_by_which_numbers():
    assert make(batches=5, train=2).measured(MEASURED) == (
        "freeze: auto trains c2, c3 beside the heads; gradient norm / weight norm over 5 batches: "
        "c1 0.02, c2 0.5, c3 0.26"
    )


def test_it_measures_once_after_the_probe_and_answers_for_the_past_as_it_did():
    policy = make(batches=3, probe_epochs=2)
    assert [policy.batches_to_measure(Progress(epoch, 4)) for epoch in range(4)] == [0, 0, 3, 3]
    policy.measured(MEASURED)
    assert [policy.batches_to_measure(Progress(epoch, 4)) for epoch in range(4)] == [0, 0, 0, 0]
    assert [trains(policy, epoch) for epoch in range(4)] == [set(), set(), {"c2"}, {"c2"}]


def test_a_resumed_run_keeps_the_choice():
    policy = make()
    before, resumed = json.loads(json.dumps(policy.state())), make()
    resumed.load_state(before)
    assert resumed.batches_to_measure(Progress(0, 4)) == 8
    policy.measured(MEASURED)
    resumed.load_state(json.loads(json.dumps(policy.state())))
    assert resumed.batches_to_measure(Progress(0, 4)) == 0
    assert trains(resumed) == trains(policy) == {"c2"}


def test_gradients_that_are_all_zero_choose_nothing():
    with pytest.raises(FtengineError, match=r"no gradient in any stage.*freeze\.probe_epochs: 1"):
        make().measured(dict.fromkeys(MEASURED, 0.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 4}, r"freeze\.train: 4 stages are to train, and 3 have parameters \(c1, c2, c3\)"),
        (
            {"probe_epochs": 4},
            r"freeze\.probe_epochs: auto measures after epoch 4, and the run has 4; at most 3 would do",
        ),
        ({"stages": {"pooled": []}}, r"freeze\.train: 1 stages are to train, and 0 have parameters; use `all`"),
    ],
)
def test_what_can_never_be_is_refused(options, message):
    with pytest.raises(FtengineError, match=message):
        make(**options)


@pytest.mark.parametrize(
    "options", [{"batches": 0}, {"train": 0}, {"threshold": 0}, {"threshold": 1.5}, {"train": 1, "threshold": 0.5}]
)
def test_options_are_validated(options):
    with pytest.raises(ValidationError):
        AutoOptions.model_validate(options)
