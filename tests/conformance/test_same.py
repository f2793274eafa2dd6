"""How two values differ, in words."""

import math

import numpy as np
import pytest
import torch

from ftengine.testing.checks import Nonconformity
from ftengine.testing.randomness import global_seeds, noted_draws
from ftengine.testing.same import difference, pickled

ALIKE = {
    "plain values": ([1, "a", None, True], [1, "a", None, True]),
    "NaN": ({"a": math.nan}, {"a": math.nan}),
    "an array with NaN": (np.array([1.0, math.nan]), np.array([1.0, math.nan])),
    "a list and a tuple": ([1, 2], (1, 2)),
    "an empty tensor": (torch.zeros(0, 4), torch.zeros(0, 4)),
}
UNLIKE = {
    "a value": ({"a": [0, 1]}, {"a": [0, 2]}, "['a'][1] 2, not 1"),
    "names": ({"a": 1}, {"b": 1}, "the names 'b', not 'a'"),
    "a length": ([1, 2], [1], "1 items, not 2"),
    "a float": (0.5, 0.25, "0.25, not 0.5"),
    "NaN": (math.nan, 0.5, "0.5, not nan"),
    "a tensor": (torch.zeros(2, 2), torch.eye(2), "[0, 0] 1, not 0 (and 1 others of 4)"),
    "a type": (torch.zeros(2), torch.zeros(2).double(), "tensor float64 [2], not tensor float32 [2]"),
    "a shape": (np.zeros(2), np.zeros((2, 1)), "array float64 [2, 1], not array float64 [2]"),
    "booleans": (np.array([True]), np.array([False]), "[0] False, not True"),
    "a scalar array": ({"a": np.array(1)}, {"a": np.array(2)}, "['a'] 2, not 1"),
    "another kind": (np.zeros(1), [0.0], "[0.0], not array([0.])"),
}


@pytest.mark.parametrize(("first", "second"), ALIKE.values(), ids=ALIKE)
def test_what_is_the_same(first, second):
    assert difference(first, second) is None


@pytest.mark.parametrize(("first", "second", "text"), UNLIKE.values(), ids=UNLIKE)
def test_what_differs(first, second, text):
    assert difference(first, second) == text


def test_a_tolerance_is_relative_and_for_numbers_alone():
    assert difference(1000.0, 1000.001, 1e-5) is None
    assert difference(1000.0, 1000.1, 1e-5) == "1000.1, not 1000"
    assert difference(torch.tensor([1.0]), torch.tensor([1.000001]), 1e-5) is None
    assert difference(1, 2, 10.0) == "2, not 1"


def test_what_cannot_be_pickled_is_said():
    assert pickled({"a": 1}, "a thing", "for a reason") == {"a": 1}
    with pytest.raises(Nonconformity, match="expected a thing that can be pickled, for a reason; found "):
        pickled(lambda: None, "a thing", "for a reason")


@pytest.mark.parametrize("library", ["random", "numpy", "torch"])
def test_draws_from_a_global_generator_are_noted_and_undone(library):
    import random

    draw = {"random": random.random, "numpy": np.random.rand, "torch": lambda: torch.rand(()).item()}[library]
    drawn = []
    with global_seeds(5):
        expected = draw()
    with global_seeds(5), noted_draws(drawn):
        assert draw() == expected
    assert drawn == [library]
    with global_seeds(5), noted_draws(drawn):
        pass
    assert drawn == [library]
