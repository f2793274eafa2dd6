"""The config's sections for what may go wrong: when to save, and what to do about broken numbers and broken files."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ftengine.config_refs import Section


class CheckpointConfig(Section):
    """When the state of a run is saved. A new best model is saved at once, and so is the end of the run."""

    every_epochs: int | None = Field(1, ge=1, description="Epochs between checkpoints; null: not at ends of epochs.")
    every_steps: int | None = Field(None, ge=1, description="Steps between checkpoints.")
    every_minutes: float | None = Field(None, gt=0, description="Minutes between checkpoints.")
    keep: int = Field(1, ge=1, description="How many of the latest checkpoints stay, beside the best.")
    background: bool = Field(True, description="Write while the training goes on, from a copy of the state.")


class PolicySection(Section):
    """A section that is written as its `policy` alone, too."""

    @model_validator(mode="before")
    @classmethod
    def _from_policy(cls, value: Any) -> Any:
        return {"policy": value} if isinstance(value, str) else value


class NonFiniteConfig(PolicySection):
    """What a loss or gradient that is not finite leads to. In no case does its step change a weight."""

    shorthand = ({"enum": ["stop", "skip", "rollback"]},)
    forms = "stop, skip, rollback, or a mapping with `policy`"

    policy: Literal["stop", "skip", "rollback"] = Field(
        "stop",
        description="stop: end the run; skip: leave the step out; rollback: go back to the weights of the last "
        "checkpoint, and on with the step after it.",
    )
    limit: int = Field(10, ge=1, description="Steps that may be left out in a run; one more ends it.")


class BadSampleConfig(PolicySection):
    """What a sample that cannot be read leads to."""

    shorthand = ({"enum": ["error", "quarantine"]},)
    forms = "error, quarantine, or a mapping with `policy`"

    policy: Literal["error", "quarantine"] = Field(
        "error",
        description="error: end the run; quarantine: note it in quarantine.jsonl, train on another sample in its "
        "place, and leave it out of evaluations.",
    )
    budget: float = Field(
        0.01, gt=0, description="Most samples in quarantine: below 1 a share of the split, from 1 on a number."
    )
