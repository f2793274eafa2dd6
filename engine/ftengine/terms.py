"""The terms of losses and regularizers: scalars by name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ftengine.errors import TrainingError


def scalars(giver: str, given: object) -> Mapping[str, Tensor]:
    """What a component has `given`. Raises TrainingError, in its name, where that is no dict of scalar tensors."""
    if not isinstance(given, Mapping):
        raise TrainingError(f"{giver} gave {_described(given)}; expected a dict of named scalar tensors")
    for name, term in given.items():
        if not isinstance(term, Tensor) or term.ndim:
            raise TrainingError(f"{giver} gave {_described(term)} as {name!r}; expected a scalar tensor")
    return given


def add_term(terms: dict[str, Tensor], name: str, term: Tensor) -> None:
    """Add it under its name; the same component twice, with other options, gets a ``'``."""
    while name in terms:
        name += "'"
    terms[name] = term


def _described(value: object) -> str:
    return f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
