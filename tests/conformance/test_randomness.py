"""Networks that are made with few random numbers."""

import torch
from torch import nn

from ftengine.testing.randomness import FewNumbers, global_seeds

SIDE = 300


def test_large_tensors_repeat_their_first_numbers_which_are_those_asked_for():
    with global_seeds(0), FewNumbers():
        values = torch.empty(SIDE, SIDE).normal_(3, 0.1)
    flat = values.flatten()
    torch.testing.assert_close(flat[FewNumbers.COUNT :], flat[: flat.numel() - FewNumbers.COUNT], rtol=0, atol=0)
    assert abs(float(values.mean()) - 3) < 0.01
    assert abs(float(values.std()) - 0.1) < 0.01


def test_small_tensors_have_the_numbers_of_the_seed():
    with global_seeds(0), FewNumbers():
        few = torch.empty(10, 10).uniform_(-1, 1)
    with global_seeds(0):
        assert torch.equal(few, torch.empty(10, 10).uniform_(-1, 1))


def test_a_factory_may_draw_until_the_numbers_suit_it():
    weight = torch.empty(SIDE, SIDE)
    with FewNumbers():
        nn.init.trunc_normal_(weight, std=1.0, a=-1.0, b=1.0)
    assert float(weight.abs().max()) <= 1
    assert weight.unique().numel() > 1000
