"""Every schedule against torch's own scheduler, at every step; and which ones do not fit a run."""

import math

import pytest
import torch
from pydantic import ValidationError

from ftengine.config_train import TrainConfig
from ftengine.schedule import (
    SCHEDULES,
    Constant,
    Cosine,
    Exponential,
    MultiStep,
    OneCycle,
    Plateau,
    Polynomial,
    Step,
)

STEPS, EPOCH, LR = 60, 5, 0.3


def torch_rates(make, steps=STEPS, every=1, values=None):
    """The rates torch sets, one a step; the scheduler goes on after `every` steps each, given the next of `values`."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = make(optimizer)
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < steps:
            scheduler.step(*[] if values is None else [values[step // every]])
    return rates


def own_rates(schedule, steps=STEPS):
    return [LR * schedule.factor(step, steps, EPOCH) for step in range(steps)]


def close(values):
    return pytest.approx(values, rel=1e-9, abs=1e-12)


def of_epochs(values):
    """Each epoch's first value in place of all of them."""
    return [values[step // EPOCH * EPOCH] for step in range(len(values))]


LRS = torch.optim.lr_scheduler


def test_cosine_is_torch_s():
    assert own_rates(Cosine()) == close(torch_rates(lambda o: LRS.CosineAnnealingLR(o, STEPS)))
    floor = torch_rates(lambda o: LRS.CosineAnnealingLR(o, STEPS, eta_min=0.1 * LR))
    assert own_rates(Cosine(final=0.1)) == close(floor)


@pytest.mark.parametrize("mult", [1, 2, 3])
@pytest.mark.parametrize("epochs", [1, 2, 2.6])
@pytest.mark.parametrize("final", [0, 0.1])
def test_cosine_with_restarts_is_torch_s(mult, epochs, final):
    first = round(epochs * EPOCH)
    expected = torch_rates(lambda o: LRS.CosineAnnealingWarmRestarts(o, first, mult, eta_min=final * LR))
    assert own_rates(Cosine(restart_epochs=epochs, restart_mult=mult, final=final)) == close(expected)


@pytest.mark.parametrize("mult", [1, 2])
def test_cosine_with_restarts_by_epoch_is_torch_s_stepped_by_epoch(mult):
    expected = torch_rates(lambda o: LRS.CosineAnnealingWarmRestarts(o, 3, mult), every=EPOCH)
    assert own_rates(Cosine(restart_epochs=3, restart_mult=mult, per="epoch")) == close(expected)


def test_step_is_torch_s_step_by_epoch():
    expected = torch_rates(lambda o: LRS.StepLR(o, 4, gamma=0.5), every=EPOCH)
    assert own_rates(Step(every_epochs=4, gamma=0.5)) == close(expected)


@pytest.mark.parametrize(
    ("steps", "drops"),
    [(12 * EPOCH, [4, 8]), (10 * EPOCH, [4, 7]), (3 * EPOCH, [1, 2]), (2 * EPOCH, [1]), (EPOCH, [])],
)
def test_a_step_is_a_third_of_the_run_by_default(steps, drops):
    expected = torch_rates(lambda o: LRS.MultiStepLR(o, drops), steps, every=EPOCH)
    assert own_rates(Step(), steps) == close(expected)


def test_multi_step_is_torch_s_by_epoch():
    expected = torch_rates(lambda o: LRS.MultiStepLR(o, [3, 4, 9], gamma=0.3), every=EPOCH)
    assert own_rates(MultiStep(milestones=(3, 4, 9), gamma=0.3)) == close(expected)


def test_multi_step_by_step_is_torch_s_by_step():
    expected = torch_rates(lambda o: LRS.MultiStepLR(o, [3, 22, 37]))
    assert own_rates(MultiStep(milestones=(0.6, 4.3, 7.4), per="step")) == close(expected)


def test_a_milestone_within_an_epoch_waits_for_the_next_one_and_within_a_step_too():
    by_epoch = torch_rates(lambda o: LRS.MultiStepLR(o, [3, 8]), every=EPOCH)
    assert own_rates(MultiStep(milestones=(2.2, 8))) == close(by_epoch)
    by_step = torch_rates(lambda o: LRS.MultiStepLR(o, [12]))
    assert own_rates(MultiStep(milestones=(2.25,), per="step")) == close(by_step)


@pytest.mark.parametrize(
    ("steps", "drops"), [(12 * EPOCH, [8, 11]), (9 * EPOCH, [6, 8]), (90 * EPOCH, [60, 80]), (EPOCH, [])]
)
def test_milestones_are_two_thirds_and_eight_ninths_by_default(steps, drops):
    assert own_rates(MultiStep(), steps) == close(torch_rates(lambda o: LRS.MultiStepLR(o, drops), steps, every=EPOCH))


def test_exponential_is_torch_s_by_epoch():
    assert own_rates(Exponential(gamma=0.8)) == close(torch_rates(lambda o: LRS.ExponentialLR(o, 0.8), every=EPOCH))


def test_exponential_by_step_decays_as_much_an_epoch_in_even_parts():
    rates = own_rates(Exponential(gamma=0.8, per="step"))
    assert rates == close(torch_rates(lambda o: LRS.ExponentialLR(o, 0.8 ** (1 / EPOCH))))
    assert rates[::EPOCH] == close(own_rates(Exponential(gamma=0.8))[::EPOCH])


@pytest.mark.parametrize("power", [0.5, 0.9, 1, 2])
def test_polynomial_is_torch_s(power):
    assert own_rates(Polynomial(power=power)) == close(torch_rates(lambda o: LRS.PolynomialLR(o, STEPS, power)))
    by_epoch = torch_rates(lambda o: LRS.PolynomialLR(o, STEPS // EPOCH, power), every=EPOCH)
    assert own_rates(Polynomial(power=power, per="epoch")) == close(by_epoch)


def test_a_straight_line_to_a_final_factor_is_torch_s_linear_one():
    expected = torch_rates(lambda o: LRS.LinearLR(o, 1.0, 0.2, total_iters=STEPS))
    assert own_rates(Polynomial(final=0.2)) == close(expected)


@pytest.mark.parametrize(
    "options", [{}, {"pct_start": 0.5, "div_factor": 10, "final_div_factor": 100}, {"pct_start": 0.05}]
)
@pytest.mark.parametrize("steps", [60, 137])
def test_one_cycle_is_torch_s(options, steps):
    expected = torch_rates(lambda o: LRS.OneCycleLR(o, LR, steps, cycle_momentum=False, **options), steps)
    assert own_rates(OneCycle(**options), steps) == close(expected)
    assert own_rates(OneCycle(**options, per="epoch"), steps) == close(of_epochs(expected))


NAN = math.nan
HISTORIES = [
    [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1],
    [0.5] * 11,
    [0.5, 0.4, 0.6, 0.55, 0.55, 0.61, 0.6, 0.6, 0.6, 0.6, 0.6],
    [0.5, 0.5, 0.5, 0.5, 0.7, 0.7, 0.7, 0.75, 0.7, 0.7, 0.7],
    [-3.0, -2.5, NAN, NAN, -2.4, NAN, -2.39, -2.38, -2.0, NAN, NAN],
    [NAN] * 11,
]


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("patience", [0, 1, 2, 5])
@pytest.mark.parametrize(("min_delta", "min_factor"), [(0, 0), (0.05, 0), (0, 0.03)])
def test_plateau_is_torch_s_stepped_at_evaluations(history, patience, min_delta, min_factor):
    options = {"patience": patience, "threshold": min_delta, "min_lr": min_factor * LR, "threshold_mode": "abs"}
    expected = torch_rates(
        # torch leaves a rate alone that would change by less than `eps`
        lambda o: LRS.ReduceLROnPlateau(o, "max", 0.2, eps=0, **options),
        every=EPOCH,
        values=history,
    )
    schedule = Plateau(gamma=0.2, patience=patience, min_delta=min_delta, min_factor=min_factor)
    own = [LR * schedule.factor(step, STEPS, EPOCH, history[: step // EPOCH]) for step in range(STEPS)]
    assert own == close(expected)


def test_plateau_drops_within_the_warm_up_as_well():
    schedule = Plateau(warmup_epochs=4, patience=0)
    ramp = Constant(warmup_epochs=4)
    for step in (5, 15, 20, 40):
        assert schedule.factor(step, STEPS, EPOCH, [0.5]) == ramp.factor(step, STEPS, EPOCH)
        assert schedule.factor(step, STEPS, EPOCH, [0.5, 0.4]) == 0.1 * ramp.factor(step, STEPS, EPOCH)


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"plateau"}))
def test_only_plateau_looks_at_the_evaluations(name):
    schedule = SCHEDULES[name]()
    assert own_rates(schedule) == [LR * schedule.factor(step, STEPS, EPOCH, HISTORIES[1]) for step in range(STEPS)]


def test_warm_up_is_torch_s_linear_one():
    warmup = 2 * EPOCH
    expected = torch_rates(lambda o: LRS.LinearLR(o, start_factor=0.01, total_iters=warmup))
    assert own_rates(Constant(warmup_epochs=2)) == close(expected)


@pytest.mark.parametrize("steps", [2, 4, 5, 10])
def test_one_cycle_of_which_the_rise_is_a_single_step(steps):
    schedule = OneCycle(pct_start=1 / steps)
    rates = [schedule.factor(step, steps, 1) for step in range(steps)]
    assert rates[0] == 1.0
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("per", ["step", "epoch"])
def test_the_schedule_proper_runs_over_the_steps_after_the_warm_up(name, per):
    warm = SCHEDULES[name](warmup_epochs=2, warmup_start=0.2, per=per)
    plain = SCHEDULES[name](per=per)
    after = [warm.factor(step, STEPS, EPOCH) for step in range(10, STEPS)]
    assert after == [plain.factor(step, STEPS - 10, EPOCH) for step in range(STEPS - 10)]
    rise = [warm.factor(step, STEPS, EPOCH) for step in range(10)]
    first = plain.factor(0, STEPS - 10, EPOCH)  # 1, but for one that begins lower and rises by itself
    assert rise == close([first * (0.2 + 0.08 * step) for step in range(10)])  # by the step, whatever `per` says


def test_a_warm_up_may_last_a_part_of_an_epoch():
    assert own_rates(Constant(warmup_epochs=0.6))[:4] == close([LR * (0.01 + 0.99 * i / 3) for i in range(3)] + [LR])


def test_by_epoch_the_schedule_changes_where_an_epoch_begins_wherever_the_warm_up_ended():
    rates = own_rates(Polynomial(warmup_epochs=0.6, per="epoch"))
    by_step = own_rates(Polynomial(warmup_epochs=0.6))
    assert rates[:3] == by_step[:3]
    assert rates[3:5] == [by_step[3]] * 2
    assert rates[5:] == of_epochs(by_step)[5:]


def test_each_changes_by_default_as_is_customary():
    by_epoch = {name for name, schedule in SCHEDULES.items() if schedule().per == "epoch"}
    assert by_epoch == {"step", "multi_step", "exponential"}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("warmup", [0, 0.4, 5])
@pytest.mark.parametrize("per", ["step", "epoch"])
def test_every_factor_of_a_short_run_is_finite_and_between_0_and_1(name, steps, warmup, per):
    schedule = SCHEDULES[name](warmup_epochs=warmup, per=per)
    for step in range(steps):
        factor = schedule.factor(step, steps, 2, [0.5] * (step // 2))
        assert math.isfinite(factor)
        assert 0 <= factor <= 1


def test_a_restart_is_at_least_a_step_away():
    assert Cosine(restart_epochs=0.01).factor(7, 60, 5) == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("multi_step", {"milestones": (8, 5)}, "milestones must ascend, got 5 after 8"),
        ("multi_step", {"milestones": (5, 5)}, "milestones must ascend, got 5 after 5"),
        ("multi_step", {"milestones": ()}, "at least 1 item"),
        ("multi_step", {"milestones": (0,)}, "greater than 0"),
        ("cosine", {"restart_mult": 2}, "restart_mult needs restart_epochs"),
        ("cosine", {"restart_epochs": 2, "restart_mult": 0}, "greater than or equal to 1"),
        ("cosine", {"restart_epochs": 2, "restart_mult": 1.5}, "valid integer"),
        ("polynomial", {"power": 0}, "greater than 0"),
        ("plateau", {"gamma": 1}, "less than 1"),
        ("plateau", {"patience": -1}, "greater than or equal to 0"),
        ("constant", {"per": "batch"}, "'step' or 'epoch'"),
    ],
)
def test_values_that_mean_nothing_are_refused(name, options, message):
    with pytest.raises(ValidationError, match=message):
        SCHEDULES[name](**options)


def problems(schedule, **train):
    return list(schedule.problems(TrainConfig(**train)))


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_fits_a_run_of_ten_epochs_has_no_problem(name):
    assert problems(SCHEDULES[name](), epochs=10) == []
    assert problems(SCHEDULES[name](warmup_epochs=2), epochs=10) == []


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"plateau"}))
def test_defaults_fit_a_run_of_any_length(name):
    assert problems(SCHEDULES[name](), epochs=1) == []


@pytest.mark.parametrize(("warmup", "needed"), [(3, 4), (3.5, 4), (7, 8)])
def test_a_warm_up_as_long_as_the_run_is_too_long(warmup, needed):
    message = f"a warm-up of {warmup} epochs in a run of 3: give less than 3, or `train.epochs` of at least {needed}"
    assert problems(Cosine(warmup_epochs=warmup), epochs=3) == [("warmup_epochs", message)]
    assert problems(Step(warmup_epochs=warmup, every_epochs=9), epochs=3) == [("warmup_epochs", message)]
    assert problems(Cosine(warmup_epochs=warmup), epochs=needed) == []


@pytest.mark.parametrize(
    ("schedule", "option", "message"),
    [
        (
            Step(every_epochs=30),
            "every_epochs",
            "a first drop after 30 epochs never comes in a run of 10: give at most 9, or `train.epochs` of at least 31",
        ),
        (
            Step(every_epochs=8, warmup_epochs=2),
            "every_epochs",
            "a first drop after 8 epochs never comes in a run of 10, of which the warm-up takes 2: give at most 7, or "
            "`train.epochs` of at least 11",
        ),
        (
            MultiStep(milestones=(5, 9.5)),
            "milestones",
            "a drop after 9.5 epochs never comes in a run of 10: give at most 9, or `train.epochs` of at least 11",
        ),
        (
            MultiStep(milestones=(5, 10), per="step"),
            "milestones",
            "a drop after 10 epochs never comes in a run of 10: give less than 10, or `train.epochs` of at least 11",
        ),
        (
            MultiStep(milestones=(0.5,), warmup_epochs=9),
            "milestones",
            "a drop after 0.5 epochs never comes in a run of 10, of which the warm-up takes 9: give `train.epochs` of "
            "at least 11",
        ),
        (
            Cosine(restart_epochs=12.5),
            "restart_epochs",
            "a restart after 12.5 epochs never comes in a run of 10: give less than 10, or `train.epochs` of at least "
            "13",
        ),
    ],
)
def test_what_never_comes_is_a_problem_that_says_what_would_work(schedule, option, message):
    assert problems(schedule, epochs=10) == [(option, message)]
    longer = int(message.rsplit(" ", 1)[1])
    assert problems(schedule, epochs=longer) == []
    assert problems(schedule, epochs=longer - 1) != []


@pytest.mark.parametrize(
    ("schedule", "last"),
    [
        (Step(every_epochs=9), 0.1),
        (MultiStep(milestones=(5, 9)), 0.01),
        (MultiStep(milestones=(9.9,), per="step"), 0.1),
        (MultiStep(milestones=(8.5,), warmup_epochs=0.5), 0.1),
        (Cosine(restart_epochs=9.9), 1),
    ],
)
def test_what_comes_just_in_time_is_none_and_does_come(schedule, last):
    assert problems(schedule, epochs=10) == []
    assert schedule.factor(10 * 30 - 1, 10 * 30, 30) == pytest.approx(last, abs=1e-3)


def test_every_milestone_that_never_comes_is_named():
    found = problems(MultiStep(milestones=(2, 3, 4)), epochs=3)
    assert [(option, message.split(" never")[0]) for option, message in found] == [
        ("milestones", "a drop after 3 epochs"),
        ("milestones", "a drop after 4 epochs"),
    ]


@pytest.mark.parametrize(
    ("patience", "train", "message"),
    [
        (
            9,
            {"epochs": 10},
            "a patience of 9 never ends in a run of 10 epochs with 10 evaluations: give at most 7, or at least 12 "
            "evaluations (`train.epochs`, `train.eval_every`)",
        ),
        (
            2,
            {"epochs": 11, "eval_every": 3},
            "a patience of 2 never ends in a run of 11 epochs with 4 evaluations: give at most 1, or at least 5 "
            "evaluations (`train.epochs`, `train.eval_every`)",
        ),
        (
            0,
            {"epochs": 2},
            "a patience of 0 never ends in a run of 2 epochs with 2 evaluations: give at least 3 evaluations "
            "(`train.epochs`, `train.eval_every`)",
        ),
    ],
)
def test_a_patience_that_the_run_does_not_reach(patience, train, message):
    assert problems(Plateau(patience=patience), **train) == [("patience", message)]


@pytest.mark.parametrize("epochs", range(1, 12))
@pytest.mark.parametrize("patience", [0, 1, 4])
def test_a_patience_is_a_problem_exactly_where_the_rate_could_not_drop(epochs, patience):
    schedule = Plateau(patience=patience)
    drops = any(schedule.factor(epoch, epochs, 1, [0.5] * epoch) < 1 for epoch in range(epochs))
    assert bool(problems(schedule, epochs=epochs)) == (not drops)


def test_early_stopping_that_leaves_no_time_for_a_drop():
    schedule = Plateau(patience=2)
    assert problems(schedule, epochs=10, early_stopping=4) == []
    assert problems(schedule, epochs=10, early_stopping=3) == [
        (
            "patience",
            "`train.early_stopping` with a patience of 3 ends the run before this one, 2, lets the rate drop: give it "
            "at least 4",
        )
    ]
    # Small improvements may keep the run alive that do not keep the rate.
    assert problems(Plateau(patience=2, min_delta=0.1), epochs=10, early_stopping=3) == []
