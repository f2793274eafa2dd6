"""What losses, regularizers and metrics come to: values by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor

from ftengine.errors import TrainingError

Value = TypeVar("Value")


def scalars(giver: str, given: object) -> Mapping[str, Tensor]:
    """What a component has `given`. Raises TrainingError, in its name, where that is no dict of scalar tensors."""
    if not isinstance(given, Mapping):
        raise TrainingError(f"{giver} gave {_described(given)}; expected a dict of named scalar tensors")
    for name, term in given.items():
        if not isinstance(term, Tensor) or term.ndim:
            raise TrainingError(f"{giver} gave {_described(term)} as {name!r}; expected a scalar tensor")
    return given


def add_named(values: dict[str, Value], name: str, value: Value) -> None:
    """Add a value under its name; that of the same component again, with other options, gets a ``'``."""
    while name in values:
        name += "'"
    values[name] = value


def _described(value: object) -> str:
    return f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
