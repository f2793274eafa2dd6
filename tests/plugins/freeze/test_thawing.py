"""The policies under which stages unfreeze on the way: when each does, and what is refused."""

from itertools import pairwise

import pytest
from pydantic import ValidationError

from ftengine.errors import FtengineError
from ftengine.protocols import FreezeContext, Progress
from ftengine_freeze.plugin import GradualOptions, LpFtOptions
from ftengine_freeze.thawing import gradual, lp_ft

STAGES = {name: [f"{name}.weight"] for name in ("c1", "c2", "c3", "c4")}
POOLED = {"stem": [], **STAGES, "pooled": []}


def starts(factory, options, epochs, stages=STAGES):
    """The epoch in which each stage first trains (None: never), and that it trains from then on to the end."""
    policy = factory(options, FreezeContext(stages, epochs=epochs))
    trains = [stages.keys() - policy.frozen(stages, Progress(epoch, epochs)) for epoch in range(epochs)]
    assert all(before <= after for before, after in pairwise(trains))
    return [next((epoch for epoch, names in enumerate(trains) if stage in names), None) for stage in stages]


@pytest.mark.parametrize(
    ("options", "epochs", "expected"),
    [
        ({}, 10, [8, 6, 4, 2]),
        ({}, 12, [9, 7, 4, 2]),
        ({}, 5, [4, 3, 2, 1]),
        ({}, 2, [1, 1, 1, 1]),
        ({"epochs_per_stage": 1}, 5, [4, 3, 2, 1]),
        ({"epochs_per_stage": 2}, 20, [8, 6, 4, 2]),
        ({"until": "c3"}, 9, [None, None, 6, 3]),
        ({"until": "c3", "epochs_per_stage": 2}, 5, [None, None, 4, 2]),
        ({"until": "c1"}, 10, [8, 6, 4, 2]),
    ],
)
def test_gradual_goes_from_the_head_down(options, epochs, expected):
    assert starts(gradual, GradualOptions(**options), epochs) == expected


@pytest.mark.parametrize(
    ("options", "expected"), [({}, [8, 8, 6, 4, 2, 0]), ({"until": "c2"}, [None, None, 7, 5, 2, 0])]
)
def test_stages_without_parameters_take_no_time_and_go_with_the_stage_above(options, expected):
    assert starts(gradual, GradualOptions(**options), 10, POOLED) == expected


@pytest.mark.parametrize(
    ("options", "epochs", "expected"),
    [({}, 10, 5), ({}, 3, 1), ({}, 2, 1), ({"probe_epochs": 1}, 10, 1), ({"probe_epochs": 9}, 10, 9)],
)
def test_lp_ft_is_a_probe_and_then_everything(options, epochs, expected):
    assert starts(lp_ft, LpFtOptions(**options), epochs, POOLED) == [expected] * len(POOLED)


@pytest.mark.parametrize(
    ("factory", "options", "epochs", "messages"),
    [
        (
            gradual,
            GradualOptions(epochs_per_stage=3),
            12,
            (
                "freeze.epochs_per_stage: with 3 epochs for each of 4 stages c1 would unfreeze after epoch 12 and "
                "never train: the run has 12; at most 2 would do, or train.epochs of at least 13, or fewer stages by "
                "freeze.until; or leave it out",
            ),
        ),
        (
            gradual,
            GradualOptions(epochs_per_stage=1),
            4,
            ("the run has 4; train.epochs of at least 5, or fewer stages",),
        ),
        (gradual, GradualOptions(until="c9"), 9, ("freeze.until: unknown stage 'c9'", "stages: stem, c1, c2, c3, c4")),
        (gradual, GradualOptions(until="stem"), 9, ("freeze.until: nothing in stem can train",)),
        (gradual, GradualOptions(), 1, ("a run of one epoch", "train.epochs of at least 2, or `freeze: none`")),
        (
            lp_ft,
            LpFtOptions(probe_epochs=5),
            5,
            (
                "freeze.probe_epochs: lp_ft trains the heads alone for 5 of the run's 5 epochs",
                "at most 4 would do, or train.epochs of at least 6",
            ),
        ),
        (lp_ft, LpFtOptions(), 1, ("leaves none to fine-tune; train.epochs of at least 2, or `freeze: all`",)),
    ],
)
def test_a_run_that_is_too_short_or_a_stage_that_is_not_there(factory, options, epochs, messages):
    with pytest.raises(FtengineError) as error:
        factory(options, FreezeContext(POOLED, epochs=epochs))
    for message in messages:
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("model", "options"),
    [(GradualOptions, {"epochs_per_stage": 0}), (GradualOptions, {"until": ""}), (LpFtOptions, {"probe_epochs": 0})],
)
def test_options_are_validated(model, options):
    with pytest.raises(ValidationError):
        model.model_validate(options)
