"""Batches of like shapes: the same samples, once each, from any step on."""

from itertools import chain

import numpy as np
import pytest
from tiny import TinyData

from ftengine.order import TrainOrder, aspect_groups, like_shapes_together


def test_batches_are_of_one_group_but_for_the_rest():
    groups = np.array([0] * 40 + [1] * 24 + [2] * 8)
    order = np.random.default_rng(0).permutation(72)
    made = like_shapes_together(order, groups, 8)
    assert sorted(made) == sorted(order)
    kinds = [set(groups[batch]) for batch in made.reshape(-1, 8)]
    assert all(len(kind) == 1 for kind in kinds)
    assert kinds != sorted(kinds, key=min)  # the groups come mixed


def test_what_no_group_has_room_for_makes_batches_with_its_neighbours():
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    made = like_shapes_together(np.arange(8), groups, 4)
    assert [sorted(set(groups[batch])) for batch in made.reshape(-1, 4)] == [[0, 1], [1, 2]]


def test_an_order_by_groups_starts_anywhere_and_takes_what_the_plain_one_takes():
    groups = np.arange(23) % 3
    full = list(TrainOrder(23, 4, 5, "s", 0, 15, groups))
    for start in range(15):
        assert list(TrainOrder(23, 4, 5, "s", start, 15, groups)) == full[start:]
    plain = list(TrainOrder(23, 4, 5, "s", 0, 15))
    for epoch in range(3):
        steps = slice(epoch * 5, epoch * 5 + 5)
        assert sorted(chain(*full[steps])) == sorted(chain(*plain[steps]))
    assert full != plain


class Sized(TinyData):
    def size(self, index):
        return [(100, 50), (100, 99), (99, 100), (100, 130), None][index]


@pytest.mark.parametrize(("length", "expected"), [(4, [0, 2, 3, 4]), (5, None)])
def test_images_are_grouped_by_aspect_where_all_sizes_are_known(length, expected):
    groups = aspect_groups(Sized(length))
    assert expected == (None if groups is None else groups.tolist())
