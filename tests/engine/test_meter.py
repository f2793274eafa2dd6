"""The mean training loss."""

import json

import pytest
import torch

from ftengine.guard import Computed
from ftengine.meter import Meter


def part(loss, samples=4, share=1.0, **terms):
    """A part of a batch, with its loss and terms as tensors."""
    terms = {name: torch.as_tensor(value) for name, value in terms.items()}
    return Computed([f"s{index}" for index in range(samples)], torch.as_tensor(loss), terms, share)


def test_means_over_steps():
    meter = Meter()
    for value in (1.0, 2.0, 6.0):
        meter.add([part(value, ce=value / 2)])
    assert (meter.samples, meter.steps) == (12, 3)
    assert meter.take() == pytest.approx({"loss": 3.0, "loss/ce": 1.5})
    assert meter.take() == {}
    assert (meter.samples, meter.steps) == (0, 0)


def test_losses_of_several_streams_in_one_step_are_summed():
    meter = Meter()
    for value in (1.0, 3.0):
        meter.add([part(value, a=value), part(10 * value, 2, b=10 * value)])
    assert meter.take() == pytest.approx({"loss": 22.0, "loss/a": 2.0, "loss/b": 20.0})


def test_it_continues_from_its_state_to_the_bit():
    values = torch.rand(7, generator=torch.Generator().manual_seed(0))
    whole, first, second = Meter(), Meter(), Meter()
    for value in values:
        whole.add([part(value, ce=value / 3)])
    for value in values[:3]:
        first.add([part(value, ce=value / 3)])
    second.load(json.loads(json.dumps(first.state())), torch.device("cpu"))
    for value in values[3:]:
        second.add([part(value, ce=value / 3)])
    assert (second.samples, second.steps) == (whole.samples, whole.steps)
    assert second.take() == whole.take()


def test_an_empty_state():
    meter = Meter()
    meter.load(Meter().state(), torch.device("cpu"))
    assert meter.take() == {}


def test_parts_of_a_step_count_by_their_share():
    meter = Meter()
    meter.add([part(2.0)])
    meter.add([part(3.0, 1, 0.25), part(5.0, 3, 0.75)])
    assert meter.take() == pytest.approx({"loss": (2 + 4.5) / 2})


def test_a_term_is_averaged_over_the_steps_that_have_it():
    meter = Meter()
    meter.add([part(1.0, a=1.0)])
    meter.add([part(3.0, b=5.0)])
    assert meter.take() == pytest.approx({"loss": 2.0, "loss/a": 1.0, "loss/b": 5.0})


def test_half_precision_is_summed_in_single():
    meter = Meter()
    value = torch.tensor(0.001, dtype=torch.bfloat16)
    for _ in range(1000):
        meter.add([part(value)])
    assert meter.sums["loss"].dtype == torch.float32
    assert meter.take()["loss"] == pytest.approx(value.item(), rel=1e-4)
