"""Times as a person writes them, and the epochs that fit into them."""

import click
import pytest

from ftengine.compare.budget import Cost, as_option, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("20min", 1200),
        ("20m", 1200),
        ("1h30min", 5400),
        ("1h 30min 5s", 5405),
        ("1.5h", 5400),
        (" 2h ", 7200),
        ("0.5min", 30),
    ],
)
def test_a_time_as_it_is_written(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "min", "0s", "-5min", "5min2h", "1d", "1,5h", "5 hours"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(click.UsageError, match="expected a time such as 90s, 20min or 1h30min"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "5s"), (41, "45s"), (90, "90s"), (91, "2min"), (3599, "1h"), (3601, "1h1min")]
)
def test_a_budget_that_is_proposed_is_enough_and_can_be_given(seconds, text):
    assert as_option(seconds) == text
    assert seconds_of(text) >= seconds


COST = Cost(start=10.0, step=0.5, evaluation=2.0, save=1.0, steps=8, extra=1.0)
"""An epoch takes 8 · 0.5 + 1 + 2 = 7 seconds, all else 10 + 2 + 2 = 14."""


def test_the_time_of_a_run_by_hand():
    assert COST.seconds(1) == 21
    assert COST.seconds(10) == 84


def test_evaluations_between_epochs_count():
    cost = Cost(start=0.0, step=0.0, evaluation=1.0, save=0.0, steps=1, eval_every=3)
    assert [cost.seconds(epochs) for epochs in (1, 3, 4, 6, 7)] == [2, 2, 3, 3, 4]


@pytest.mark.parametrize(
    ("seconds", "epochs"), [(20.9, 0), (21, 1), (27.9, 1), (28, 2), (84, 10), (14 + 7 * 1000, 1000)]
)
def test_the_most_epochs_that_fit(seconds, epochs):
    assert COST.epochs(seconds) == epochs


def test_a_cost_from_what_was_measured():
    found = {"step": 0.5, "evaluation": 2.0, "save": 1.0, "test": 0.5, "steps": 8, "measured": 13.0}
    cost = Cost.measured(found, process=20.0, eval_every=2, mixtures=3)
    assert cost == Cost(start=7.0, step=0.5, evaluation=2.0, save=1.0, steps=8, eval_every=2, extra=3.5)
