"""The options of the datasets of boxes and masks, without what it takes to read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ftengine.plugin import DatasetOptions, Options
from ftengine_datasets.options import FileOptions

Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
Level = Annotated[int, Field(ge=0, le=65535)]
Channel = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Channel, Channel, Channel]


def _each_once(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if names is not None and len(set(names)) < len(names):
        raise ValueError("names a class twice")
    return names


class CocoSplit(Options):
    """Where one split of a `coco` dataset is."""

    images: Path = Field(description="Folder that the file names in `annotations` start from.")
    annotations: Path = Field(description="JSON file with the lists `images`, `annotations` and `categories`.")


class CocoOptions(FileOptions):
    train: CocoSplit = Field(description="The training split: its `images` folder and its `annotations` file.")
    val: CocoSplit | None = Field(None, description="The validation split; held out of `train` if left out.")
    test: CocoSplit | None = Field(None, description="The test split, if there is one.")
    classes: Names | None = Field(
        None, description="Names of the categories to learn, in this order; all of them, by id, if left out."
    )
    verify: bool = Field(
        True, description="Check the header of every image, and its size, before training, about 0.15 ms a file."
    )

    _classes_once = field_validator("classes")(_each_once)


class VocOptions(FileOptions):
    train: str = Field(
        "train", min_length=1, description="The training split: a set's name in `sets`, or the path of its .txt file."
    )
    val: str | None = Field(
        None, min_length=1, description="The validation split, likewise; held out of `train` if left out."
    )
    test: str | None = Field(None, min_length=1, description="The test split, likewise, if there is one.")
    annotations: Path = Field(Path("Annotations"), description="Folder of the XML files.")
    images: Path = Field(Path("JPEGImages"), description="Folder of the images.")
    sets: Path = Field(Path("ImageSets/Main"), description="Folder of the sets: text files, one image a line.")
    classes: Names | None = Field(
        None, description="Class names in index order; those that a split's files have, sorted, if left out."
    )
    difficult: Literal["ignore", "keep", "drop"] = Field(
        "ignore",
        description="Objects marked as difficult: `ignore` neither trains on them nor counts a detection of them as "
        "right or wrong, as VOC does; `keep` takes them as any other; `drop` takes them for background.",
    )
    one_based: bool = Field(
        True,
        description="The upper left pixel is (1, 1) and a box includes its last row and column, as VOC has it: a box "
        "becomes xmin - 1, ymin - 1, xmax, ymax. False takes the numbers as they are.",
    )
    verify: bool = Field(
        True, description="Check the header of every image, and its size, before training, about 0.15 ms a file."
    )

    _classes_once = field_validator("classes")(_each_once)


class YoloOptions(DatasetOptions):
    file: Path = Field(Path("data.yaml"), description="YAML file with the class `names` and the splits' folders.")
    train: str = Field(
        "train", min_length=1, description="The training split: a key of `file`, or a path to images or to a list."
    )
    val: str | None = Field(
        "val", min_length=1, description="The validation split, likewise; held out of `train` if null."
    )
    test: str | None = Field(None, min_length=1, description="The test split, likewise, if there is one.")


class MaskSplit(Options):
    """Where one split of a `masks` dataset is."""

    images: Path = Field(description="Folder of the images.")
    masks: Path = Field(description="Folder of the masks.")


def _beside(value: Any) -> Any:
    """One folder stands for the two in it."""
    if isinstance(value, str | Path):
        return {"images": Path(value) / "images", "masks": Path(value) / "masks"}
    return value


MaskFolders = Annotated[MaskSplit, BeforeValidator(_beside, json_schema_input_type=Path | MaskSplit)]


class MaskOptions(FileOptions):
    train: MaskFolders = Field(
        description="Folder of the training split, with the folders `images` and `masks` in it; or a mapping of both."
    )
    val: MaskFolders | None = Field(
        None, description="The validation split, likewise; held out of `train` if left out."
    )
    test: MaskFolders | None = Field(None, description="The test split, likewise, if there is one.")
    classes: Names | dict[str, Level] | dict[str, Colour] = Field(
        min_length=1,
        max_length=255,
        description="Class names in the order of the mask values 0, 1, …; or a mapping of names to values, or of names "
        "to [red, green, blue].",
    )
    ignore: Level | Colour | tuple[Level, ...] | tuple[Colour, ...] = Field(
        (),
        description="Mask value (or colour), or a list of them, of pixels that are neither learnt nor measured. Values "
        "that are neither here nor in `classes` are refused.",
    )
    mask_suffix: str = Field(
        "", description="What a mask's name has behind its image's: `_mask` where 1.jpg belongs to 1_mask.png."
    )
    verify: bool = Field(
        True,
        description="Read every mask, and the header of every image, before training: about 1 ms for 480×360 pixels.",
    )

    @model_validator(mode="after")
    def _each_value_once(self) -> MaskOptions:
        if isinstance(self.classes, tuple):
            _each_once(self.classes)
        known: dict[int | Colour, str] = {}
        for name, value in [*self.values.items(), *(("`ignore`", value) for value in self.ignored)]:
            if value in known:
                raise ValueError(f"{known[value]} and {name} are both {value}")
            known[value] = name
        if len({isinstance(value, tuple) for value in known}) > 1:
            raise ValueError("`classes` and `ignore` mix values with colours")
        return self

    @property
    def values(self) -> dict[str, int] | dict[str, Colour]:
        """What stands for each class in the files, in index order."""
        if isinstance(self.classes, tuple):
            return {name: value for value, name in enumerate(self.classes)}
        return self.classes

    @property
    def ignored(self) -> tuple[int, ...] | tuple[Colour, ...]:
        """`ignore`, one or several, as a tuple; three numbers are a colour where the classes are colours."""
        if isinstance(self.ignore, int):
            return (self.ignore,)
        colours = any(isinstance(value, tuple) for value in self.values.values())
        if colours and len(self.ignore) == 3 and all(isinstance(value, int) for value in self.ignore):
            return (self.ignore,)
        return self.ignore
