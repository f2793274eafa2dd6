"""The options of segmentation's task, losses and metrics, as a config gives them. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ftengine.plugin import Options

Weight = Annotated[float, Field(ge=0)]
ClassWeights = Literal["balanced"] | list[Weight] | dict[str, Weight] | None


class TaskOptions(Options):
    count_pixels: bool = Field(
        False,
        description="Count the training pixels of each class before training, which decodes every mask once; "
        "class_weights: balanced needs it.",
    )


class LossOptions(Options):
    """What every loss of segmentation has in common."""

    class_weights: ClassWeights = Field(
        None,
        description="Weight of each class in the mean: a list in class order, a mapping by class name (1 for those "
        "left out), or 'balanced' for n / (classes * pixels of the class), which the task's count_pixels must count.",
    )
    aux_weight: float = Field(
        0.5, ge=0, description="Factor of the same loss on the auxiliary head's output in training, where there is one."
    )


class CrossEntropyOptions(LossOptions):
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Part of the target's probability that is spread evenly over all classes."
    )


class FocalOptions(LossOptions):
    gamma: float = Field(2.0, ge=0, description="How much well-classified pixels count less; 0: not at all.")


class RegionOptions(LossOptions):
    """Options of the losses that measure how regions overlap."""

    per_image: bool = Field(
        False, description="Whether to measure each image by itself, and take their mean, or the batch as one region."
    )


class OverlapOptions(RegionOptions):
    smooth: float = Field(
        0.0, ge=0, description="Pixels added to numerator and denominator, which softens the loss of small regions."
    )


class TverskyOptions(OverlapOptions):
    alpha: float = Field(0.5, ge=0, description="Weight of the false positives.")
    beta: float = Field(0.5, ge=0, description="Weight of the false negatives.")
    gamma: float = Field(
        1.0, gt=0, description="Power of each class's loss: above 1, classes that overlap well count less; 1: plain."
    )

    @model_validator(mode="after")
    def _punishes_something(self) -> TverskyOptions:
        if self.alpha == self.beta == 0:
            raise ValueError("alpha and beta are both 0, so that no mistake would count; expected one above 0")
        return self


class MetricOptions(Options):
    per_class: bool = Field(True, description="Whether to report each class, too, as <measure>/<class>.")
