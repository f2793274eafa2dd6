"""A loss that is not finite stops the run with the step and the samples."""

import pytest
import torch

from ftengine.errors import TrainingError
from ftengine.guard import LossGuard, Watched


def scalar(value):
    return torch.tensor(value, requires_grad=True)


def test_finite_losses_pass_and_are_forgotten():
    guard = LossGuard(10)
    guard.watch(0, ["a"], scalar(1.0), {"ce": scalar(1.0)})
    assert guard.waiting == []
    guard.check()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_on_a_cpu_it_raises_at_once(value):
    guard = LossGuard(10)
    with pytest.raises(TrainingError) as error:
        guard.watch(23, ["a.jpg", "b.jpg"], scalar(value), {"ce": scalar(0.5), "l1": scalar(value)})
    first, samples, causes = str(error.value).splitlines()
    assert first == f"the loss is not finite at step 24 (epoch 3): ce 0.5, l1 {value:g}"
    assert samples == "  samples: a.jpg, b.jpg"
    assert causes.startswith("  common causes: ")
    guard.check()


class OnGpu:
    """A loss that says it is on a GPU: nothing may look at its value before the check."""

    device = torch.device("cuda")

    def __init__(self, value):
        self.value = value

    def detach(self):
        return self.value


def test_on_a_gpu_it_waits_for_the_check_and_names_the_first_bad_step():
    guard = LossGuard(10)
    for step, value in enumerate([1.0, float("nan"), float("inf"), 2.0]):
        guard.watch(step, [f"s{step}"], OnGpu(torch.tensor(value)), {"ce": torch.tensor(value)})
    assert [watched.step for watched in guard.waiting] == [0, 1, 2, 3]
    with pytest.raises(TrainingError, match=r"at step 2 \(epoch 1\): ce nan\n  samples: s1\n"):
        guard.check()
    guard.check()


def test_what_waits_holds_no_graph():
    guard = LossGuard(10)
    loss = OnGpu(torch.tensor(1.0))
    guard.watch(0, ["a"], loss, {"ce": scalar(1.0) * 2})
    (watched,) = guard.waiting
    assert isinstance(watched, Watched)
    assert not watched.terms["ce"].requires_grad
