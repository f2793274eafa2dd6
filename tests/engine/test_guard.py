"""A step whose loss or gradient is not finite is named with its samples, and never waited for on a device."""

import math

import pytest
import torch
from torch import nn

from ftengine.config_faults import NonFiniteConfig
from ftengine.errors import TrainingError
from ftengine.guard import Computed, KeptBuffers, NumberGuard, Watched

NAN, INF = math.nan, math.inf


def watched(step, *losses, norm=1.0):
    """A step in as many parts as there are `losses`."""
    parts = [
        Computed([f"s{step}p{index}"], torch.tensor(loss), {"ce": torch.tensor(loss)}, 1 / len(losses))
        for index, loss in enumerate(losses)
    ]
    broken = not all(map(math.isfinite, (*losses, norm)))
    return Watched(step, torch.tensor(broken), torch.tensor(norm), parts, parts)


def guard_of(*steps, **options):
    guard = NumberGuard(10, NonFiniteConfig(**options))
    guard.waiting.extend(steps)
    return guard


def test_good_steps_are_handed_on_once():
    first, second = watched(0, 1.0), watched(1, 2.0, 3.0)
    guard = guard_of(first, second)
    assert guard.check() == ([first.parts, second.parts], [])
    assert guard.check() == ([], [])


@pytest.mark.parametrize(("value", "shown"), [(NAN, "nan"), (INF, "inf"), (-INF, "-inf")])
def test_a_fault_names_the_parts_whose_loss_is_broken(value, shown):
    good, (fault,) = guard_of(watched(22, 1.0), watched(23, 0.5, value, 0.25)).check()
    assert len(good) == 1
    assert (fault.step, fault.epoch, fault.what) == (24, 3, "loss")
    assert str(fault) == f"the loss is not finite at step 24 (epoch 3): ce {shown}\n  samples: s23p1"


def test_a_gradient_is_of_all_parts():
    _, (fault,) = guard_of(watched(4, 0.5, 0.5, norm=INF)).check()
    assert str(fault) == (
        "the gradient is not finite at step 5 (epoch 1): ce 0.5, gradient_norm inf\n  samples: s4p0, s4p1"
    )


def test_stop_raises_for_the_first():
    guard = guard_of(*(watched(step, value) for step, value in enumerate([1.0, NAN, INF, 2.0])))
    good, faults = guard.check()
    assert (len(good), [fault.step for fault in faults]) == (2, [2, 3])
    with pytest.raises(TrainingError, match=r"at step 2 \(epoch 1\): ce nan\n  samples: s1p0\n  common causes: "):
        guard.decide(faults)


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_a_limit_ends_what_goes_on(policy):
    guard = guard_of(policy=policy, limit=2)
    faults = guard_of(*(watched(step, NAN) for step in range(3))).check()[1]
    guard.decide(faults[:1])
    guard.decide(faults[1:2])
    assert guard.left_out == 2
    with pytest.raises(TrainingError, match=r"(?s)at step 3.*2 steps were left out before: that is the limit of train"):
        guard.decide(faults[2:])


class Net(nn.Module):
    """With BatchNorm's buffers, float and integer, and one that its forward pass replaces by a new tensor."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, x):
        self.mean = 0.5 * self.mean + x.mean(0)
        return self.norm(x)


def test_buffers_go_back_to_what_was_kept():
    net, other = Net(), nn.BatchNorm1d(3)
    kept = KeptBuffers([net, other])
    for _ in range(2):  # the first time copies are made, then filled
        net(torch.randn(4, 2))
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        kept.keep()
        net(torch.full((4, 2), NAN))
        other(torch.full((4, 3), NAN))
        assert not kept.finite()
        kept.restore()
        assert kept.finite()
        assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
        assert other.num_batches_tracked == 0
    assert net.norm.num_batches_tracked == 2


def test_a_model_without_buffers_has_none_to_keep():
    kept = KeptBuffers([nn.Linear(2, 2)])
    kept.keep()
    kept.restore()
    assert kept.finite()
