"""The mean training loss."""

import json

import pytest
import torch

from ftengine.meter import Meter


def test_means_over_steps():
    meter = Meter()
    for value in (1.0, 2.0, 6.0):
        meter.add(torch.tensor(value), {"ce": torch.tensor(value / 2)}, 4, 1)
    assert meter.samples == 12
    assert meter.take(3) == pytest.approx({"loss": 3.0, "loss/ce": 1.5})
    assert meter.take(0) == {}
    assert meter.samples == 0


def test_losses_of_several_streams_in_one_step_are_summed():
    meter = Meter()
    for value in (1.0, 3.0):
        meter.add(torch.tensor(value), {"a": torch.tensor(value)}, 4, 1)
        meter.add(torch.tensor(10 * value), {"b": torch.tensor(10 * value)}, 2, 1)
    assert meter.take(2) == pytest.approx({"loss": 22.0, "loss/a": 2.0, "loss/b": 20.0})


def test_it_continues_from_its_state_to_the_bit():
    values = torch.rand(7, generator=torch.Generator().manual_seed(0))
    whole, first, second = Meter(), Meter(), Meter()
    for value in values:
        whole.add(value, {"ce": value / 3}, 4, 1)
    for value in values[:3]:
        first.add(value, {"ce": value / 3}, 4, 1)
    second.load(json.loads(json.dumps(first.state())), torch.device("cpu"))
    for value in values[3:]:
        second.add(value, {"ce": value / 3}, 4, 1)
    assert second.samples == whole.samples
    assert second.take(7) == whole.take(7)


def test_an_empty_state():
    meter = Meter()
    meter.load(Meter().state(), torch.device("cpu"))
    assert meter.take(0) == {}


def test_parts_of_a_step_count_as_one():
    meter = Meter()
    meter.add(torch.tensor(2.0), {}, 4, 1)
    for value in (3.0, 5.0):
        meter.add(torch.tensor(value), {}, 2, 2)
    assert meter.take(2) == pytest.approx({"loss": (2 + 4) / 2})


def test_a_term_is_averaged_over_the_steps_that_have_it():
    meter = Meter()
    meter.add(torch.tensor(1.0), {"a": torch.tensor(1.0)}, 1, 1)
    meter.add(torch.tensor(3.0), {"b": torch.tensor(5.0)}, 1, 1)
    assert meter.take(2) == pytest.approx({"loss": 2.0, "loss/a": 1.0, "loss/b": 5.0})


def test_half_precision_is_summed_in_single_and_without_a_graph():
    meter = Meter()
    value = torch.tensor(0.001, dtype=torch.bfloat16, requires_grad=True)
    for _ in range(1000):
        meter.add(value, {}, 1, 1)
    assert meter.sums["loss"].dtype == torch.float32
    assert not meter.sums["loss"].requires_grad
    assert meter.take(1000)["loss"] == pytest.approx(value.item(), rel=1e-4)
