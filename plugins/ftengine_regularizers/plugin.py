"""Regularizers: terms that keep a model near its start, or small. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ftengine.plugin import Options, RegularizerSpec, hookimpl

FTENGINE_API = (1, 0)


class L2SpOptions(Options):
    """Not both strengths 0."""

    backbone: float = Field(
        0.01, ge=0, description="Strength for the backbone: half of it times the squared distance from the start."
    )
    head: float = Field(0.01, ge=0, description="Strength for the heads: half of it times the squared size.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.backbone == self.head == 0:
            raise ValueError("`backbone` and `head` are both 0, which leaves nothing to add to the loss")
        return self


class L1Options(Options):
    strength: float = Field(1e-5, gt=0, description="Factor of the sum of absolute values.")
    part: Literal["all", "backbone", "head"] = Field("all", description="Which weights: backbone and heads, or one.")


class FeatureDistillOptions(Options):
    strength: float = Field(1.0, gt=0, description="Factor of the features' relative squared distance.")
    levels: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None, description="The backbone's levels to compare, such as c4, c5; the last one if left out."
    )


@hookimpl
def register_regularizers() -> Iterator[RegularizerSpec]:
    yield RegularizerSpec(
        name="l2_sp",
        factory="ftengine_regularizers.weights:L2Sp",
        summary="Squared distance of the backbone's weights from their start, and squared size of the heads' (L2-SP).",
        options=L2SpOptions,
    )
    yield RegularizerSpec(
        name="l1",
        factory="ftengine_regularizers.weights:L1",
        summary="The sum of the absolute values of the weights that train (lasso).",
        options=L1Options,
    )
    yield RegularizerSpec(
        name="feature_distill",
        factory="ftengine_regularizers.features:FeatureDistill",
        summary="Relative squared distance of the backbone's features from those of the original, which stays frozen.",
        options=FeatureDistillOptions,
    )
