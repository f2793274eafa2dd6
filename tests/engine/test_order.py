"""Batches of like shapes: the same samples, once each, from any step on."""

from itertools import chain, groupby

import numpy as np
import pytest
from tiny import TinyData

from ftengine.errors import FtengineError
from ftengine.order import TrainOrder, aspect_groups, companions, companions_together, like_shapes_together
from ftengine.protocols import Companions


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


@pytest.mark.parametrize(
    ("samples", "count", "runs"),
    [(1, 4, [1]), (3, 4, [3]), (5, 4, [5]), (7, 4, [3, 4]), (8, 4, [4, 4]), (15, 4, [3, 4, 4, 4]), (3, 2, [3])],
)
def test_no_companion_is_left_alone_where_there_are_others(samples, count, runs):
    groups = np.array([0] * samples + [*range(1, 100)])
    order = np.random.default_rng(0).permutation(len(groups))
    made = companions_together(order, Companions(groups, count))
    assert sorted(made) == sorted(order)
    found = [len(list(run)) for group, run in groupby(groups[made]) if group == 0]
    assert sorted(found) == runs


def test_a_run_of_companions_comes_where_its_first_sample_stood():
    order = np.array([4, 0, 5, 1, 2, 3, 6])
    groups = np.array([0, 1, 0, 1, 1, 0, 0])
    assert companions_together(order, Companions(groups, 2)).tolist() == [4, 1, 3, 0, 5, 2, 6]


def test_an_order_of_companions_starts_anywhere_and_takes_what_the_plain_one_takes():
    of_each = Companions(np.arange(103) % 20, 4)
    full = list(TrainOrder(103, 16, 5, "s", 0, 18, of_each))
    for start in range(18):
        assert list(TrainOrder(103, 16, 5, "s", start, 18, of_each)) == full[start:]
    plain = list(TrainOrder(103, 16, 5, "s", 0, 18))
    for epoch in range(3):
        steps = slice(epoch * 6, epoch * 6 + 6)
        assert sorted(chain(*full[steps])) == sorted(chain(*plain[steps]))

    def alone(batches):
        """The samples that are the only one of their group in their batch."""
        labels = [[index % 20 for _, index in batch] for batch in batches]
        return sum(batch.count(label) == 1 for batch in labels for label in batch)

    assert alone(plain) > 100
    assert alone(full) < 20


class WithCompanions:
    def __init__(self, found):
        self.found = found

    def companions(self, data):
        return self.found


def test_the_first_task_that_has_companions_says_so():
    first, second = (Companions(np.zeros(10, int), count) for count in (2, 3))
    tasks = [WithCompanions(found) for found in (None, first, second)]
    assert companions(tasks, TinyData(10)) is first
    assert companions(tasks[:1], TinyData(10)) is None


@pytest.mark.parametrize("wrong", [Companions(np.zeros(9, int), 2), Companions(np.zeros(10, int), 1)])
def test_companions_that_do_not_fit_the_data_are_refused(wrong):
    with pytest.raises(FtengineError, match=r"WithCompanions.companions gave .* expected \[10\]"):
        companions([WithCompanions(wrong)], TinyData(10))
