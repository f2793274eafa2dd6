"""Randomness as pure functions: fixed numbers, so that a change would be noticed."""

import numpy as np
import torch

from ftengine import seeding


def test_derived_seeds_never_change():
    assert seeding.derive(0, "init") == 7797302695267191734
    assert seeding.derive(0, "step", 7) == 2131887408479480457
    assert seeding.derive(3, "augment", "data", 1, 2) == 6689176181058462404
    assert seeding.order(0, 0, 8).tolist() == [4, 1, 2, 6, 7, 0, 3, 5]


def test_derived_seeds_fit_every_generator_and_differ_by_every_part():
    variants = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", 0, 0), (0, 10), (0, 1, 0)]
    seeds = {seeding.derive(*parts) for parts in variants}
    assert len(seeds) == len(variants)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_order_is_a_permutation_of_its_own_for_each_epoch_stream_and_seed():
    orders = [seeding.order(*arguments) for arguments in [(0, 0, 50), (0, 1, 50), (1, 0, 50), (0, 0, 50, "other")]]
    for order in orders:
        assert sorted(order) == list(range(50))
    assert len({tuple(order) for order in orders}) == len(orders)
    np.testing.assert_array_equal(orders[0], seeding.order(0, 0, 50))
    assert seeding.order(0, 0, 0).tolist() == []


def test_a_step_s_randomness_depends_on_seed_and_step_alone():
    def draw(seed, step):
        seeding.seed_step(seed, step)
        return torch.rand(3).tolist()

    first = draw(0, 5)
    torch.rand(100)
    assert draw(0, 5) == first
    assert draw(0, 6) != first
    assert draw(1, 5) != first


def test_the_initialisation_s_randomness_depends_on_the_seed_alone():
    def draw(seed):
        seeding.seed_init(seed)
        return torch.rand(3).tolist()

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)
