"""Freeze policies: which part of a backbone does not train, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ftengine.plugin import FreezeSpec, Options, hookimpl

FTENGINE_API = (1, 1)

Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], Field(min_length=1)]


class StagesOptions(Options):
    """Exactly one of `through` and `only`."""

    through: str | None = Field(None, description="The last stage to freeze; all before it are frozen too.")
    only: Names | None = Field(None, description="The stages to freeze, in any order.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.through is None) == (self.only is None):
            given = "neither" if self.through is None else "both"
            raise ValueError(f"takes exactly one of 'through' and 'only', got {given}")
        return self


class PatternsOptions(Options):
    """Globs on parameter names."""

    patterns: Names = Field(
        description="Globs on parameter names, <stage>.<name> or head.<name> (head.<task>.<name> with several tasks); "
        "* also matches dots, as in 'c2.*.bn1.*'."
    )


class GradualOptions(Options):
    """From the head down, one stage after another."""

    epochs_per_stage: int | None = Field(
        None, ge=1, description="Epochs from one stage to the next; left out, the stages are spread over the run."
    )
    until: Name | None = Field(None, description="The lowest stage that unfreezes; those below it stay frozen.")


class LpFtOptions(Options):
    """First the heads alone, then everything."""

    probe_epochs: int | None = Field(
        None, ge=1, description="Epochs in which the heads train alone; left out, half of the run's."
    )


class SurgicalOptions(Options):
    """At most one of `stages` and `block`."""

    stages: Names | None = Field(None, description="The stages that train, in any order.")
    block: Literal["first", "middle", "last"] | None = Field(
        None,
        description="The third of the stages that trains, counted from the image; earlier thirds have one stage more "
        "where they cannot be equal. last, unless stages are named.",
    )

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.stages is not None and self.block is not None:
            raise ValueError("takes 'stages' or 'block', got both")
        return self


class AutoOptions(Options):
    """At most one of `train` and `threshold`."""

    batches: int = Field(8, ge=1, description="Batches whose mean gradient is measured.")
    train: int | None = Field(
        None,
        ge=1,
        description="How many stages train, those of the largest relative gradients; 1 unless a threshold is given.",
    )
    threshold: float | None = Field(
        None, gt=0, le=1, description="All stages with at least this part of the largest relative gradient train."
    )
    probe_epochs: int = Field(0, ge=0, description="Epochs in which the heads train alone before it is measured.")

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.train is not None and self.threshold is not None:
            raise ValueError("takes 'train' or 'threshold', got both")
        return self


@hookimpl
def register_freeze_policies() -> Iterator[FreezeSpec]:
    yield FreezeSpec(
        name="none",
        factory="ftengine_freeze.policies:none",
        summary="The whole backbone trains (full fine-tuning).",
    )
    yield FreezeSpec(
        name="all",
        factory="ftengine_freeze.policies:all_stages",
        summary="The whole backbone is frozen; only heads train (linear probing).",
    )
    yield FreezeSpec(
        name="stages",
        factory="ftengine_freeze.policies:stages",
        summary="The given stages are frozen: all through one, or those named.",
        options=StagesOptions,
        example={"through": "c3"},
    )
    yield FreezeSpec(
        name="patterns",
        factory="ftengine_freeze.policies:patterns",
        summary="The parameters whose names match a glob are frozen.",
        options=PatternsOptions,
        example={"patterns": ["c1.*", "*.bn*"]},
    )
    yield FreezeSpec(
        name="surgical",
        factory="ftengine_freeze.policies:surgical",
        summary="Only a block of stages trains, beside the heads (surgical fine-tuning).",
        options=SurgicalOptions,
    )
    yield FreezeSpec(
        name="bias_only",
        factory="ftengine_freeze.policies:bias_only",
        summary="Of the backbone only biases train (BitFit).",
    )
    yield FreezeSpec(
        name="norm_only",
        factory="ftengine_freeze.policies:norm_only",
        summary="Of the backbone only normalisation layers' weights and biases train.",
    )
    yield FreezeSpec(
        name="gradual",
        factory="ftengine_freeze.thawing:gradual",
        summary="Stages unfreeze one after another, from the head down (gradual unfreezing).",
        options=GradualOptions,
    )
    yield FreezeSpec(
        name="lp_ft",
        factory="ftengine_freeze.thawing:lp_ft",
        summary="The heads train alone first, then everything does (linear probing, then fine-tuning).",
        options=LpFtOptions,
    )
    yield FreezeSpec(
        name="auto",
        factory="ftengine_freeze.auto:auto",
        summary="The stages with the largest relative gradients train (Auto-RGN).",
        options=AutoOptions,
    )
