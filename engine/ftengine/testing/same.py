"""Whether two values are the same, and if not, where they differ."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from ftengine.errors import name_list
from ftengine.testing.checks import Nonconformity

Value = TypeVar("Value")


def difference(first: Any, second: Any, tolerance: float = 0.0) -> str | None:
    """How `second` differs from `first`, as in "['map'] 0.5, not 0.25"; None where it does not.

    Both are made of mappings, lists or tuples, arrays, tensors and plain values. NaN is the same as NaN; numbers may
    differ by `tolerance`, relative to the larger one (or to 1), arrays not in type or shape.
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        if set(first) != set(second):
            return f"the names {_names(second)}, not {_names(first)}"
        pairs = [(repr(key), first[key], second[key]) for key in first]
    elif _is_list(first) and _is_list(second):
        if len(first) != len(second):
            return f"{len(second)} items, not {len(first)}"
        pairs = [(str(place), *pair) for place, pair in enumerate(zip(first, second, strict=True))]
    elif isinstance(first, Tensor | np.ndarray) and type(first) is type(second):
        return _of_arrays(first, second, tolerance)
    else:
        return None if _alike(first, second, tolerance) else f"{_short(second)}, not {_short(first)}"
    for key, one, other in pairs:
        found = difference(one, other, tolerance)
        if found is not None:
            return f"[{key}]{'' if found.startswith('[') else ' '}{found}"
    return None


def pickled(value: Value, what: str, why: str) -> Value:
    """`value` as another process gets it. Raises Nonconformity if it cannot be pickled, which is needed for `why`."""
    try:
        copy: Value = pickle.loads(pickle.dumps(value))
    except Exception as error:
        raise Nonconformity(f"{what} that can be pickled, {why}", f"{type(error).__name__}: {error}") from None
    return copy


def _of_arrays(first: Any, second: Any, tolerance: float) -> str | None:
    if first.dtype != second.dtype or first.shape != second.shape:
        return f"{kind(second)}, not {kind(first)}"
    one, other = (value.detach().numpy() if isinstance(value, Tensor) else value for value in (first, second))
    if one.dtype.kind not in "fc":
        unlike = one != other
    else:
        unlike = ~np.isclose(other, one, rtol=tolerance, atol=tolerance, equal_nan=True)
    places = np.argwhere(unlike)
    if not len(places):
        return None
    place = tuple(places[0].tolist())
    more = f" (and {len(places) - 1} others of {one.size})" if len(places) > 1 else ""
    where = f"{list(place)} " if place else ""
    return f"{where}{_short(other[place].item())}, not {_short(one[place].item())}{more}"


def kind(value: Any) -> str:
    """What a value is, for a message: ``tensor float32 [4, 3]``, ``array uint8 [8, 8]``, ``str``."""
    if isinstance(value, Tensor):
        return f"tensor {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"array {value.dtype} {list(value.shape)}"
    return type(value).__name__


def _alike(first: Any, second: Any, tolerance: float) -> bool:
    if isinstance(first, float) and isinstance(second, int | float):
        if math.isnan(first) or math.isnan(second):
            return math.isnan(first) and math.isnan(second)
        return math.isclose(first, second, rel_tol=tolerance, abs_tol=tolerance)
    arrays = isinstance(first, Tensor | np.ndarray) or isinstance(second, Tensor | np.ndarray)
    return not arrays and bool(first == second)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _names(value: Mapping[Any, Any]) -> str:
    return name_list(map(repr, value))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.9g}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
