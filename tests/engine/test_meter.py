"""The mean training loss."""

import pytest
import torch

from ftengine.meter import Meter


def test_means_over_steps():
    meter = Meter()
    for value in (1.0, 2.0, 6.0):
        meter.add(torch.tensor(value), {"ce": torch.tensor(value / 2)}, 4, 1)
    assert meter.samples == 12
    assert meter.take() == pytest.approx({"loss": 3.0, "loss/ce": 1.5})
    assert meter.take() == {}
    assert meter.samples == 0


def test_parts_of_a_step_count_as_one():
    meter = Meter()
    meter.add(torch.tensor(2.0), {}, 4, 1)
    for value in (3.0, 5.0):
        meter.add(torch.tensor(value), {}, 2, 2)
    assert meter.take() == pytest.approx({"loss": (2 + 4) / 2})


def test_a_term_is_averaged_over_the_steps_that_have_it():
    meter = Meter()
    meter.add(torch.tensor(1.0), {"a": torch.tensor(1.0)}, 1, 1)
    meter.add(torch.tensor(3.0), {"b": torch.tensor(5.0)}, 1, 1)
    assert meter.take() == pytest.approx({"loss": 2.0, "loss/a": 1.0, "loss/b": 5.0})


def test_half_precision_is_summed_in_single_and_without_a_graph():
    meter = Meter()
    value = torch.tensor(0.001, dtype=torch.bfloat16, requires_grad=True)
    for _ in range(1000):
        meter.add(value, {}, 1, 1)
    assert meter.sums["loss"].dtype == torch.float32
    assert not meter.sums["loss"].requires_grad
    assert meter.take()["loss"] == pytest.approx(value.item(), rel=1e-4)
