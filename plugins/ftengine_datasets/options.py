"""The options of the datasets, without what it takes to read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ftengine.errors import name_list
from ftengine.plugin import DatasetOptions, Options


class FileOptions(DatasetOptions):
    """What datasets of image files have in common."""

    verify: bool = Field(True, description="Read the header of every image before training, about 0.15 ms a file.")


class FolderOptions(FileOptions):
    train: Path = Field(description="Folder of the training split, with one folder a class.")
    val: Path | None = Field(None, description="Folder of the validation split; held out of `train` if left out.")
    test: Path | None = Field(None, description="Folder of the test split, if there is one.")


Columns = Annotated[tuple[str, ...], Field(min_length=1)]


class CsvOptions(FileOptions):
    train: Path = Field(description="CSV file of the training split; its first line names the columns.")
    val: Path | None = Field(None, description="CSV file of the validation split; held out of `train` if left out.")
    test: Path | None = Field(None, description="CSV file of the test split, if there is one.")
    image: str = Field("image", description="Column with the image's path.")
    images: Path | None = Field(
        None, description="Folder that the image paths start from; the CSV file's own folder if left out."
    )
    label: str | None = Field(None, description="Column with the image's one class.")
    labels: str | Columns | None = Field(
        None, description="Column with the image's tags, joined by `separator`; or a list of columns of 0 and 1."
    )
    separator: str = Field(";", min_length=1, description="What joins the tags in one `labels` column.")
    targets: str | Columns | None = Field(None, description="Column, or list of columns, with the numbers to predict.")
    delimiter: str = Field(",", min_length=1, max_length=1, description="What separates the columns.")

    @model_validator(mode="after")
    def _something_to_learn(self) -> CsvOptions:
        if not self.target_fields():
            raise ValueError("one of `label`, `labels` and `targets` must say which columns to learn from")
        if isinstance(self.labels, str) and self.separator == self.delimiter:
            raise ValueError(f"`separator` and `delimiter` are both {self.delimiter!r}")
        for name, columns in (("labels", self.labels), ("targets", self.targets)):
            if isinstance(columns, tuple) and len(set(columns)) < len(columns):
                raise ValueError(f"`{name}` names a column twice")
        return self

    def target_fields(self) -> frozenset[str]:
        given = {"label": self.label, "labels": self.labels, "values": self.targets}
        return frozenset(field for field, columns in given.items() if columns is not None)

    @property
    def target_columns(self) -> tuple[str, ...]:
        """`targets`, one or several, as a tuple."""
        return (self.targets,) if isinstance(self.targets, str) else self.targets or ()


class SceneOptions(Options):
    """Scenes of several digits. Up to 1797 digits in all, no two scenes have a digit in common."""

    count: int = Field(600, ge=1, description="How many scenes there are.")
    size: int = Field(96, ge=32, le=2048, description="Height and width of a scene, in pixels.")
    digits: tuple[int, int] = Field((1, 4), description="Least and greatest number of digits in a scene.")
    digit_size: tuple[int, int] = Field((24, 40), description="Least and greatest height of a digit, in pixels.")
    seed: int = Field(0, ge=0, description="Seed of the scenes: where which digits are, and what they look like.")

    @model_validator(mode="after")
    def _in_order(self) -> SceneOptions:
        for name, (least, greatest), start in (("digits", self.digits, 0), ("digit_size", self.digit_size, 8)):
            if not start <= least <= greatest:
                raise ValueError(f"`{name}` is [{least}, {greatest}]; expected two ascending numbers from {start} on")
        if self.digit_size[1] > self.size:
            raise ValueError(f"a digit of {self.digit_size[1]} pixels does not fit into a scene of {self.size}")
        return self


def _switch(value: Any) -> Any:
    """True stands for scenes as they are by default, False for none."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


Scenes = Annotated[SceneOptions | None, BeforeValidator(_switch, json_schema_input_type=bool | SceneOptions | None)]


class DigitsOptions(DatasetOptions):
    scenes: Scenes = Field(
        None,
        description="Compose scenes of several digits, with boxes and masks, which of them occur (labels), and their "
        "number as `count`: true, or a mapping of what they are like.",
    )
    targets: tuple[Literal["value", "ink", "count"], ...] = Field(
        ("value",),
        min_length=1,
        description="Numbers to predict: `value`, the digit itself, and `ink`, the mean intensity in 0..1; of scenes "
        "`count`, which is then the default.",
    )
    limit: int | None = Field(None, ge=1, le=1797, description="Use the first so many images only.")

    @model_validator(mode="before")
    @classmethod
    def _count_of_scenes(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("scenes") not in (None, False) and "targets" not in data:
            return {**data, "targets": ("count",)}
        return data

    @field_validator("train", "val", "test")
    @classmethod
    def _one_set(cls, value: Any) -> None:
        if value is not None:
            raise ValueError(
                "the digits are one set that comes with scikit-learn: leave this out; "
                "`val_fraction` and `test_fraction` say how much of it is held out"
            )

    @field_validator("targets")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("names a target twice")
        return value

    @model_validator(mode="after")
    def _targets_of_what_there_is(self) -> DigitsOptions:
        known = {"count"} if self.scenes else {"value", "ink"}
        if not known.issuperset(self.targets):
            what = "scenes" if self.scenes else "single digits"
            raise ValueError(f"`targets` of {what} are {name_list(known)}; got {name_list(self.targets)}")
        return self

    def target_fields(self) -> frozenset[str]:
        return frozenset({"boxes", "labels", "mask", "values"} if self.scenes else {"label", "values"})
