"""Intervals by hand, and which strategy is recommended in which case."""

import math

import pytest

from ftengine.compare.stats import Candidate, duration, interval, paired, recommend


def test_the_interval_of_three_values_by_hand():
    # Mean 0.9, standard deviation 0.1, and t(0.975, 2) = 4.302653 from a table.
    found = interval([0.8, 0.9, 1.0])
    assert found.mean == pytest.approx(0.9)
    assert found.half == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)


def test_the_interval_of_five_values_by_hand():
    # Mean 3, standard deviation √2.5, and t(0.975, 4) = 2.776445.
    assert interval([1, 2, 3, 4, 5]).half == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-6)


def test_one_value_has_no_interval():
    found = interval([0.5])
    assert (found.mean, found.half, found.excludes_zero) == (0.5, None, False)


def test_differences_are_paired_by_seed():
    # The seeds differ far more than the strategies: only pairing shows the difference, which is the same for all.
    a, b = {0: 0.5, 1: 0.7, 2: 0.9}, {2: 0.75, 1: 0.5625, 0: 0.375, 3: 0.0}
    found = paired(a, b)
    assert found.mean == pytest.approx((0.125 + 0.1375 + 0.15) / 3)
    assert found.half == pytest.approx(4.302653 * 0.0125 / math.sqrt(3), rel=1e-6)
    assert found.excludes_zero
    assert not interval([a[seed] - b[seed + 1] for seed in (0, 1, 2)]).excludes_zero


def candidate(name, *values, seconds=10.0, lost=None):
    by_seed = dict(enumerate(values))
    return Candidate(name, by_seed, seconds, None if lost is None else dict(enumerate(lost)))


@pytest.mark.parametrize(
    ("candidates", "mode", "winner", "says"),
    [
        pytest.param(
            [candidate("a", 0.90, 0.91, 0.92), candidate("b", 0.80, 0.81, 0.82, seconds=1)],
            "max",
            "a",
            "none is within one standard error of it: 0.1 better than b",
            id="clearly best, though slow",
        ),
        pytest.param(
            [candidate("a", 3.0, 3.1, 3.2), candidate("b", 1.0, 1.1, 1.2)],
            "min",
            "b",
            "b has the best mean score, 1.1 ± 0.25 over 3 seeds, and none is within one standard error of it: 2 better",
            id="smaller is better",
        ),
        pytest.param(
            [candidate("a", 0.90, 0.95, 0.92, seconds=20), candidate("b", 0.91, 0.92, 0.92, seconds=16)],
            "max",
            "b",
            "b is within one standard error of it (0.0067 better than b, 95 % interval -0.045 to 0.058) and takes "
            "20% less time (16 s a run instead of 20 s)",
            id="as good and a fifth faster",
        ),
        pytest.param(
            [candidate("a", 0.90, 0.95, 0.92, seconds=20), candidate("b", 0.91, 0.92, 0.92, seconds=17)],
            "max",
            "a",
            "b is within one standard error of it, but is no cheaper",
            id="as good and not much faster",
        ),
        pytest.param(
            [
                candidate("a", 0.90, 0.95, 0.92, lost=[0.30, 0.31, 0.32]),
                candidate("b", 0.91, 0.92, 0.92, lost=[0.10, 0.11, 0.12]),
            ],
            "max",
            "b",
            "and loses less on the retain data (0.11 instead of 0.31)",
            id="as good, as fast, and loses less",
        ),
        pytest.param(
            [
                candidate("a", 0.90, 0.95, 0.92, lost=[0.10, 0.20, 0.15]),
                candidate("b", 0.91, 0.92, 0.92, lost=[0.11, 0.16, 0.14]),
            ],
            "max",
            "a",
            "but is no cheaper",
            id="as good, and loses about as much",
        ),
        pytest.param(
            [
                candidate("a", 0.90, 0.95, 0.92, seconds=100),
                candidate("b", 0.90, 0.93, 0.93, seconds=85),
                candidate("c", 0.89, 0.96, 0.89, seconds=75),
                candidate("d", 0.50, 0.51, 0.52, seconds=1),
            ],
            "max",
            "b",
            "takes 15% less time",
            id="of those about as fast as the fastest, the best mean; the worst does not count",
        ),
        pytest.param(
            [candidate("a", 0.9), candidate("b", 0.6, seconds=1)],
            "max",
            "a",
            "a has the best score, 0.9 (next: b, 0.6). With one seed it cannot be told whether that is chance",
            id="one seed",
        ),
        pytest.param(
            [candidate("a", 0.93, 0.97, seconds=41), candidate("b", 0.80, 0.92, seconds=24)],
            "max",
            "a",
            "none is within one standard error of it: 0.09 better than b, 95 % interval -0.42 to 0.6",
            id="two seeds tell little, but no reason to take the worse",
        ),
        pytest.param([candidate("a", 0.9, 0.8)], "max", "a", "no other strategy finished", id="alone"),
    ],
)
def test_the_recommendation(candidates, mode, winner, says):
    for order in (candidates, candidates[::-1]):
        found = recommend(order, "score", mode)
        assert found is not None
        assert found.strategy == winner
        assert says in found.reason


def test_two_that_are_the_same_cannot_be_told_apart():
    found = recommend([candidate("a", 0.9, 0.9), candidate("b", 0.9, 0.9, seconds=5)], "score", "max")
    assert found.strategy == "b"
    assert "takes 50% less time" in found.reason


def test_nothing_to_recommend():
    assert recommend([], "score", "max") is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (3900, "1 h 5 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
