"""The options of classification's components, as a config gives them. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ftengine.plugin import Options

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ClassWeights = Literal["balanced"] | list[Positive] | dict[str, Positive] | None
Dropout = Annotated[float, Field(ge=0, lt=1)]


class TaskOptions(Options):
    threshold: float = Field(
        0.5, gt=0, lt=1, description="Multi-label: the probability from which an image is said to have a class."
    )


class LinearOptions(Options):
    dropout: Dropout = Field(0.0, description="Probability of dropping a pooled feature in training.")


class MlpOptions(Options):
    hidden: list[Annotated[int, Field(ge=1)]] = Field(
        [256], min_length=1, description="Width of each hidden layer, in order."
    )
    dropout: Dropout = Field(0.0, description="Probability of dropping a hidden unit in training.")
    activation: Literal["relu", "gelu", "silu"] = Field("relu", description="Activation after each hidden layer.")


class CrossEntropyOptions(Options):
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Part of the target's probability that is spread evenly over all classes."
    )
    class_weights: ClassWeights = Field(
        None,
        description="Weight of each class: a list in class order, a mapping by class name (1 for those left out), or "
        "'balanced' for n / (classes * samples of the class).",
    )


class FocalOptions(Options):
    gamma: float = Field(
        2.0, ge=0, allow_inf_nan=False, description="How much well-classified samples count less; 0: not at all."
    )
    alpha: float | None = Field(
        None, gt=0, lt=1, description="Multi-label: weight of the classes an image has, 1 - alpha that of the others."
    )
    class_weights: ClassWeights = Field(
        None,
        description="Weight of each class: a list in class order, a mapping by class name (1 for those left out), or "
        "'balanced' for n / (classes * samples of the class).",
    )


class BinaryCrossEntropyOptions(Options):
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="How far targets are drawn from 0 and 1 towards 0.5; 1 would be all the way."
    )
    pos_weight: ClassWeights = Field(
        None,
        description="Weight of the positives of each class: a list in class order, a mapping by class name (1 for "
        "those left out), or 'balanced' for its negatives / its positives.",
    )


class AverageOptions(Options):
    average: Literal["macro", "micro", "weighted"] = Field(
        "macro",
        description="macro: mean over classes; micro: from the counts of all classes together; weighted: mean over "
        "classes by their number of samples.",
    )
    per_class: bool = Field(False, description="Whether to report each class, too, as <metric>/<class>.")


class TopKOptions(Options):
    k: int = Field(5, ge=1, description="A prediction is right if the true class is among the k most probable.")


class AurocOptions(Options):
    per_class: bool = Field(False, description="Whether to report each class, too, as auroc/<class>.")
