"""The curve of a range test, and its rules against answers by hand."""

import math

import numpy as np
import pytest

from ftengine.errors import FtengineError
from ftengine.lr_curve import SMOOTHING, Curve, steepest, suggestions, valley, warnings


def curve_of(losses, lowest=1e-4, highest=1.0, steps=None):
    curve = Curve(lowest, highest, steps or len(losses))
    for loss in losses:
        assert not curve.over
        curve.add(loss)
    return curve


def fine_tuning(steps=100, start=2.0, down=-3.0, up=None, noise=0.02, lowest=1e-7, highest=1.0):
    """Losses that stay, fall by half around 10**down, and grow tenfold a decade above 10**up."""
    lrs = np.log10(np.geomspace(lowest, highest, steps))
    losses = start * (1 - 0.75 / (1 + np.exp(-3 * (lrs - down))))
    if up is not None:
        losses = losses + 0.1 * 10 ** (2 * (lrs - up))
    return losses + np.random.default_rng(0).normal(0, noise, steps)


# --- measuring ---------------------------------------------------------------------------------------------------


def test_rates_grow_by_the_same_factor_from_the_lowest_to_the_highest():
    curve = Curve(1e-3, 10.0, 13)
    rates = [curve.rate(step) for step in range(13)]
    assert rates[0] == 1e-3
    assert rates[-1] == pytest.approx(10.0)
    assert np.diff(np.log10(rates)) == pytest.approx(np.full(12, 4 / 12))


def test_the_smoothed_loss_is_the_weighted_mean_of_all_losses_so_far():
    losses = [3.0, 1.0, 2.5, 2.0, 2.2, 1.9, 2.1, 2.0, 1.8, 1.7]
    smoothed = [point.smoothed for point in curve_of(losses).points]
    for n in range(1, 11):
        weights = [SMOOTHING ** (n - i) for i in range(1, n + 1)]
        expected = sum(w * loss for w, loss in zip(weights, losses, strict=False)) / sum(weights)
        assert smoothed[n - 1] == pytest.approx(expected, rel=1e-12)
    assert smoothed[0] == pytest.approx(3.0)


def test_all_rates_are_tried_where_nothing_diverges():
    curve = curve_of([2.0] * 20)
    assert curve.over
    assert curve.end == "highest"
    assert curve.reason == "all 20 rates up to 1.0e+00 were tried"


def test_it_ends_when_the_smoothed_loss_exceeds_four_times_its_minimum():
    curve = curve_of([1.0] * 10, steps=100)
    curve.add(150.0)  # the smoothed loss is 1 + 149 * 0.02 / (1 - 0.98**11), about 16
    assert curve.end == "diverged"
    assert curve.over
    last = curve.points[-1]
    assert last.smoothed == pytest.approx(1 + 149 * 0.02 / (1 - 0.98**11))
    assert f"at {last.lr:.1e} the smoothed loss exceeded 4 times its minimum" in curve.reason


def test_it_goes_on_at_just_below_four_times():
    curve = curve_of([1.0] * 10, steps=100)
    share = 0.02 / (1 - 0.98**11)  # of the newest loss in the average
    curve.add(1 + 2.99 / share)
    assert curve.points[-1].smoothed == pytest.approx(3.99)
    assert not curve.over


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_it_ends_at_a_loss_that_is_not_finite(loss):
    curve = curve_of([1.0] * 10, steps=100)
    curve.add(loss)
    assert curve.over
    assert curve.end == "not finite"
    assert math.isnan(curve.points[-1].loss)
    assert math.isnan(curve.points[-1].smoothed)
    assert curve.reason == f"at {curve.points[-1].lr:.1e} the loss was not finite"


def test_a_loss_below_zero_has_no_multiple_to_exceed():
    curve = curve_of([1.0, -1.0, -2.0, -1.5, 3.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert curve.end == "highest"


@pytest.mark.parametrize(
    ("lowest", "highest", "steps", "message"),
    [
        (1.0, 0.1, 100, "learning rates from 1 to 0.1: expected a lowest above 0, and a highest above that"),
        (0.1, 0.1, 100, "from 0.1 to 0.1"),
        (0.0, 1.0, 100, "from 0 to 1"),
        (math.nan, 1.0, 100, "from nan to 1"),
        (0.1, math.inf, 100, "from 0.1 to inf"),
        (1e-7, 1.0, 9, "9 steps: expected 10 or more"),
    ],
)
def test_a_range_that_is_none_is_refused(lowest, highest, steps, message):
    with pytest.raises(FtengineError, match=message):
        Curve(lowest, highest, steps)


# --- rules -------------------------------------------------------------------------------------------------------


def test_steepest_is_the_most_negative_slope_over_the_logarithm():
    rates = np.geomspace(1e-3, 1.0, 7)  # half a decade apart
    losses = np.array([2.0, 1.9, 1.7, 0.9, 0.7, 0.6, 3.0])
    # Central differences: -0.15, -0.5, -0.5 at 1 to 3; let the fall after 2 be the larger.
    losses[2] = 1.75  # now (0.9 - 1.9) / 2 at 2 and (0.7 - 1.75) / 2 at 3
    assert steepest(rates, losses) == 3


def test_the_first_and_the_last_point_have_one_neighbour():
    rates = np.geomspace(1e-3, 1.0, 5)
    assert steepest(rates, np.array([3.0, 1.0, 0.9, 0.8, 0.7])) == 0
    assert steepest(rates, np.array([1.0, 0.99, 0.98, 0.97, -3.0])) == 4


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        # Falls through points 2..8, seven of them, ending at 8: the stretch 1..8, a third of it 2.33, so 1 + 2 + 1.
        ([5, 5, 5, 4.5, 4, 3.5, 3, 2, 1, 6, 7], 4),
        # Strictly falling from the first of ten: the stretch 0..9, a third of it 3, so 0 + 3 + 1.
        ([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], 4),
        # Bumps on the way are left out: 9 8 7 6 5 4 has six, ending at 8: the stretch 2..8, a third of it 2: 2 + 2 + 1.
        ([9, 8, 8.5, 7, 7.5, 6, 6.5, 5, 4, 9], 5),
        # Two valleys: four points ending at 3, then six ending at 9: the stretch 3..9, a third of it 2: 3 + 2 + 1.
        ([4, 3, 2, 1, 20, 19, 18, 17.5, 17, 16], 6),
        # Of valleys of equal length the first: both have three, the first ends at 2: the stretch 0..2: 0 + 0 + 0.
        ([3, 2, 1, 10, 9, 8], 0),
        # A plateau does not fall: two points, ending at 3: the stretch 1..3, a third of it 0.67: 1 + 0 + 0.
        ([2, 2, 2, 1, 2, 2], 1),
    ],
)
def test_valley_by_hand(losses, expected):
    losses = np.array(losses, np.float64)
    assert valley(np.geomspace(1e-3, 1, len(losses)), losses) == expected


def test_valley_is_the_longest_subsequence_of_all_by_trying_them():
    def length(losses, end):
        return 1 + max((length(losses, i) for i in range(end) if losses[i] > losses[end]), default=0)

    generator = np.random.default_rng(1)
    for _ in range(50):
        losses = generator.integers(0, 12, 12).astype(float)
        lengths = [length(losses, end) for end in range(12)]
        end = lengths.index(max(lengths))
        start = max(0, end - max(lengths))
        third = (end - start) / 3
        assert valley(np.geomspace(1e-3, 1, 12), losses) == start + int(third) + int(third / 2)


def test_a_curve_that_falls_and_diverges_is_read_between_its_ends():
    curve = Curve(1e-7, 1.0, 100)
    for loss in fine_tuning(down=-4.0, up=-1.5):
        if not curve.over:
            curve.add(loss)
    assert curve.end == "diverged"
    found = suggestions(curve)
    assert set(found) == {"steepest", "valley"}
    for made in found.values():
        assert made.reason == ""
        assert 1e-5 < made.lr < 1e-1
        point = next(point for point in curve.points if point.lr == made.lr)
        assert made.loss == point.smoothed
    assert warnings(curve, found["valley"]) == []


def test_the_first_tenth_and_the_last_five_of_what_diverged_are_not_read():
    curve = curve_of([2.0] * 20, steps=100)
    assert len(curve.read()[0]) == 18
    curve.add(math.nan)
    rates, losses, smoothed = curve.read()
    assert len(rates) == len(losses) == len(smoothed) == 13
    assert (rates[0], rates[-1]) == (curve.points[2].lr, curve.points[14].lr)


def test_a_loss_that_only_rises_suggests_nothing():
    found = suggestions(curve_of([1 + 0.1 * i for i in range(20)]))
    assert {(made.lr, made.loss, made.reason) for made in found.values()} == {
        (None, None, "the smoothed loss never falls")
    }
    assert warnings(curve_of([1.0] * 20), found["valley"]) == []


def test_a_constant_loss_suggests_nothing():
    found = suggestions(curve_of([1.0] * 20))
    assert found["steepest"].reason == found["valley"].reason
    assert found["valley"].lr is None


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_suggests_nothing(seed):
    losses = np.random.default_rng(seed).normal(2.0, 0.3, 100)
    made = suggestions(curve_of(losses.tolist()))["valley"]
    assert made.lr is None
    assert "within the noise of a batch" in made.reason


def test_what_falls_by_more_than_the_noise_is_no_noise():
    assert suggestions(curve_of(fine_tuning(noise=0.3).tolist(), lowest=1e-7))["valley"].lr is not None


def test_a_test_that_diverged_at_once_suggests_nothing():
    curve = curve_of([2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], steps=100)
    curve.add(math.nan)
    made = suggestions(curve)["steepest"]
    assert made.lr is None
    assert made.reason == "too short: 3 points before the loss diverged, of which 5 are needed"


def test_a_test_without_a_single_loss_suggests_nothing():
    curve = Curve(1e-7, 1.0, 100)
    curve.add(math.nan)
    assert suggestions(curve)["valley"].lr is None


# --- warnings ----------------------------------------------------------------------------------------------------


def test_a_loss_that_still_falls_at_the_highest_rate_is_said():
    curve = curve_of(fine_tuning(down=-1.0).tolist(), lowest=1e-7)
    advice = suggestions(curve)["valley"]
    assert warnings(curve, advice) == ["the loss still falls at the highest rate: try a higher --max than 1"]


def test_advice_at_an_edge_is_said():
    curve = curve_of(fine_tuning(down=-4.0, up=-1.5).tolist()[:60], lowest=1e-7, steps=100)
    curve.end = "diverged"
    made = suggestions(curve)["valley"]
    low = type(made)("valley", 2e-7, made.loss)
    assert warnings(curve, low) == ["the advice is at the lower edge of the range: try a lower --min than 1e-07"]
    high = type(made)("valley", 0.9, made.loss)
    assert warnings(curve, high) == ["the advice is at the upper edge of the range: try a higher --max than 1"]
