"""The options of regression's components, as a config gives them. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ftengine.plugin import Options

Transform = Literal["none", "log", "log1p"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
TargetWeights = list[Positive] | dict[str, Positive] | None
Dropout = Annotated[float, Field(ge=0, lt=1)]


class TaskOptions(Options):
    targets: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Which of the dataset's values to learn, in this order; all if left out."
    )
    transform: Transform | dict[str, Transform] = Field(
        "none",
        description="Space in which to learn: log (natural; values above 0), log1p (of 1 + value; values above -1) or "
        "none; for all targets, or a mapping by target name.",
    )
    standardize: bool = Field(
        True, description="Whether to learn targets with mean 0 and standard deviation 1 over the training split."
    )


class LinearOptions(Options):
    dropout: Dropout = Field(0.0, description="Probability of dropping a pooled feature in training.")


class MlpOptions(Options):
    hidden: list[Annotated[int, Field(ge=1)]] = Field(
        [256], min_length=1, description="Width of each hidden layer, in order."
    )
    dropout: Dropout = Field(0.0, description="Probability of dropping a hidden unit in training.")
    activation: Literal["relu", "gelu", "silu"] = Field("relu", description="Activation after each hidden layer.")


class LossOptions(Options):
    weights: TargetWeights = Field(
        None, description="Weight of each target: a list in order, or a mapping by name (1 for those left out)."
    )


class HuberOptions(LossOptions):
    delta: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="Error, in standardised units, from which the loss grows linearly."
    )
