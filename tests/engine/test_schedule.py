"""Every schedule against torch's own scheduler, at every step."""

import math

import pytest
import torch

from ftengine.schedule import SCHEDULES, Constant, Cosine, Exponential, OneCycle, Step

STEPS, EPOCH, LR = 60, 5, 0.3


def torch_rates(make, steps=STEPS, every=1):
    """The rates torch sets, one a step; the scheduler is stepped after every `every` steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = make(optimizer)
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < steps:
            scheduler.step()
    return rates


def own_rates(schedule, steps=STEPS):
    return [LR * schedule.factor(step, steps, EPOCH) for step in range(steps)]


def close(values):
    return pytest.approx(values, rel=1e-9, abs=1e-12)


LRS = torch.optim.lr_scheduler


def test_cosine_is_torch_s():
    assert own_rates(Cosine()) == close(torch_rates(lambda o: LRS.CosineAnnealingLR(o, STEPS)))
    floor = torch_rates(lambda o: LRS.CosineAnnealingLR(o, STEPS, eta_min=0.1 * LR))
    assert own_rates(Cosine(final=0.1)) == close(floor)


def test_step_is_torch_s_step_by_epoch():
    expected = torch_rates(lambda o: LRS.StepLR(o, 4, gamma=0.5), every=EPOCH)
    assert own_rates(Step(every_epochs=4, gamma=0.5)) == close(expected)


def test_exponential_is_torch_s_by_epoch():
    assert own_rates(Exponential(gamma=0.8)) == close(torch_rates(lambda o: LRS.ExponentialLR(o, 0.8), every=EPOCH))


@pytest.mark.parametrize(
    "options", [{}, {"pct_start": 0.5, "div_factor": 10, "final_div_factor": 100}, {"pct_start": 0.05}]
)
@pytest.mark.parametrize("steps", [60, 137])
def test_one_cycle_is_torch_s(options, steps):
    expected = torch_rates(lambda o: LRS.OneCycleLR(o, LR, steps, cycle_momentum=False, **options), steps)
    assert own_rates(OneCycle(**options), steps) == close(expected)


def test_warm_up_is_torch_s_linear_one():
    warmup = 2 * EPOCH
    expected = torch_rates(lambda o: LRS.LinearLR(o, start_factor=0.01, total_iters=warmup))
    assert own_rates(Constant(warmup_epochs=2)) == close(expected)


def test_the_schedule_proper_runs_over_the_steps_after_the_warm_up():
    warm = Cosine(warmup_epochs=2, warmup_start=0.2)
    plain = Cosine()
    after = [warm.factor(step, STEPS, EPOCH) for step in range(10, STEPS)]
    assert after == [plain.factor(step, STEPS - 10, EPOCH) for step in range(STEPS - 10)]
    assert warm.factor(0, STEPS, EPOCH) == 0.2


def test_a_warm_up_may_last_a_part_of_an_epoch():
    assert own_rates(Constant(warmup_epochs=0.6))[:4] == close([LR * (0.01 + 0.99 * i / 3) for i in range(3)] + [LR])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("warmup", [0, 0.4, 5])
def test_every_factor_of_a_short_run_is_finite_and_between_0_and_1(name, steps, warmup):
    schedule = SCHEDULES[name](warmup_epochs=warmup)
    for step in range(steps):
        factor = schedule.factor(step, steps, 2)
        assert math.isfinite(factor)
        assert 0 <= factor <= 1
