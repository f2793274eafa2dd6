"""The options of the components, without what it takes to build them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ftengine.plugin import DatasetOptions, Options


class ActionOptions(Options):
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout rate before the linear layer.")


class ClipOptions(DatasetOptions):
    """What datasets of clips have in common."""

    frames: int = Field(16, ge=1, description="How many frames a clip has.")

    def clip_frames(self) -> int:
        return self.frames


class ClipFolderOptions(ClipOptions):
    train: Path = Field(description="Folder of the training split: a folder a class, in it clips.")
    val: Path | None = Field(None, description="Folder of the validation split; held out of `train` if left out.")
    test: Path | None = Field(None, description="Folder of the test split, if there is one.")
    stride: int | None = Field(
        1,
        ge=1,
        description="Every so many frames of a video are taken, from its middle; null: `frames` of them, evenly spread "
        "over the whole.",
    )


class MovingDigitsOptions(ClipOptions):
    frames: int = Field(8, ge=1, description="How many frames a clip has; 1 shows no movement.")
    order: Literal["forward", "shuffled", "still"] = Field(
        "forward",
        description="In which order the frames come. Two are controls: `shuffled` has them in a random order, `still` "
        "has the first in place of each.",
    )
    count: int = Field(800, ge=2, description="How many clips there are.")
    size: int = Field(32, ge=16, le=256, description="Height and width of a frame, in pixels.")
    digit_size: int = Field(16, ge=8, description="Height and width of a digit, in pixels.")
    directions: Literal[4, 8] = Field(4, description="Right, down, left and up; 8: the diagonals between them, too.")
    speed: tuple[float, float] = Field((1.0, 3.0), description="Least and greatest speed, in pixels a frame.")
    seed: int = Field(0, ge=0, description="Seed of the clips.")

    @field_validator("train", "val", "test")
    @classmethod
    def _no_files(cls, value: Any) -> None:
        if value is not None:
            raise ValueError("the clips are composed, not read: leave this out; `val_fraction` holds some of them out")

    @model_validator(mode="after")
    def _fits(self) -> MovingDigitsOptions:
        if self.digit_size > self.size:
            raise ValueError(f"a digit of {self.digit_size} pixels does not fit into a frame of {self.size}")
        least, greatest = self.speed
        if not 0 < least <= greatest < self.size / 2:
            raise ValueError(
                f"`speed` is [{least:g}, {greatest:g}]; expected two ascending numbers above 0, below half of the size"
            )
        return self
