"""Regularizers: terms that keep a model near its start, or small."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from ftengine.plugin import Options, RegularizerSpec, hookimpl

FTENGINE_API = (1, 0)


class L1Options(Options):
    strength: float = Field(1e-5, gt=0, description="Factor of the sum of absolute values.")


@hookimpl
def register_regularizers() -> Iterator[RegularizerSpec]:
    yield RegularizerSpec(
        name="l1",
        factory="ftengine_regularizers.weights:l1",
        summary="The sum of the absolute values of all weights that train (lasso).",
        options=L1Options,
    )
