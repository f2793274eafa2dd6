"""The YAML as typed models. Components' own options stay plain here; :mod:`ftengine.plan` types them."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from ftengine.config_faults import CheckpointConfig
from ftengine.config_refs import (
    BackboneRef,
    DataRef,
    FreezeRef,
    HeadRef,
    Losses,
    OptimizerRef,
    Ref,
    Refs,
    ScheduleRef,
    Section,
)
from ftengine.config_train import TrainConfig
from ftengine.document import Document
from ftengine.errors import Problem
from ftengine.validation import validation_problems
from ftengine.vocabulary import Fit


def _pair(value: Any) -> Any:
    if not isinstance(value, int | list | tuple) or isinstance(value, bool):
        raise ValueError("expected one number for both sides, or a list of height and width")
    return (value, value) if isinstance(value, int) else value


_SIDE = {"type": "integer", "minimum": 1}
Size = Annotated[
    tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]],
    BeforeValidator(_pair),
    WithJsonSchema({"anyOf": [_SIDE, {"type": "array", "items": _SIDE, "minItems": 2, "maxItems": 2}]}),
]
Mean = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]


class ImageConfig(Section):
    """What size images have in the model, and how they get it."""

    size: Size | None = Field(
        None, description="Height and width in pixels, or one number for both; default: the task's."
    )
    fit: Fit | None = Field(
        None,
        description="crop: shorter side to size, centre crop; stretch: ignore the aspect; pad: longer side, centred; "
        "shorter: shorter side to size, the longer follows, up to max_size; none: as it is. Default: the task's.",
    )
    max_size: int | None = Field(
        None, ge=1, description="With fit shorter: most pixels of the longer side; default: 5/3 of size."
    )
    fit_at: Literal["start", "end"] = Field(
        "start",
        description="Fit before the augmentations, or after them (for crops taken from the full image).",
    )
    window: Size | None = Field(
        None, description="Evaluate and predict in overlapping windows of this size, where images are larger."
    )
    window_overlap: float = Field(
        1 / 3, ge=0, lt=1, description="Part of a window that it shares with the next one, at least."
    )
    mean: tuple[Mean, Mean, Mean] | None = Field(
        None, description="Channel means for images in 0..1; default: the weights' own."
    )
    std: tuple[Deviation, Deviation, Deviation] | None = Field(
        None, description="Channel deviations for images in 0..1; default: the weights' own."
    )


class TaskConfig(Section):
    """One task of a joint run."""

    task: Ref = Field(description="What kind of task this is.")
    data: DataRef | None = Field(None, description="This task's own data; left out: the data at the top level.")
    head: HeadRef | None = Field(None, description="Default: the task's.")
    loss: Losses | None = Field(None, description="One, or a list with weights; default: the head's, or the task's.")
    metrics: tuple[Ref, ...] | None = Field(None, description="Default: the task's.")
    weight: float = Field(1.0, gt=0, description="Factor of this task's loss in the sum.")


class MixConfig(Section):
    """Mix each training image with another of its batch, and their labels in the same proportion.

    With both kinds, each batch gets one of them, chosen by equal chance. A batch is a part of one with `accumulate`.
    """

    mixup: float | None = Field(
        None, gt=0, description="Blend two images by a share from Beta(mixup, mixup) (Zhang et al. 2018); 0.2 is usual."
    )
    cutmix: float | None = Field(
        None,
        gt=0,
        description="Paste a box of another image, of an area from Beta(cutmix, cutmix) (Yun et al. 2019); 1 is usual.",
    )
    p: float = Field(1.0, gt=0, le=1, description="Probability that a batch is mixed.")

    @model_validator(mode="after")
    def _something(self) -> MixConfig:
        if self.mixup is None and self.cutmix is None:
            raise ValueError("takes `mixup`, `cutmix` or both, got neither")
        return self


class PluginsConfig(Section):
    """Which plugins a run needs, and which it must not load."""

    require: tuple[str, ...] = Field((), description="Plugins without which the run is refused.")
    disable: tuple[str, ...] = Field((), description="Plugins that are not loaded.")


class Config(Section):
    """The whole file. A run has one task (`task`, `head`, `loss`, `metrics`), or several under `tasks`."""

    task: Ref | None = Field(None, description="The task of a run with one task.")
    tasks: dict[str, TaskConfig] | None = Field(None, description="Several tasks on one backbone, by a name of yours.")
    data: DataRef | None = Field(None, description="Images and labels; shared by all tasks without their own.")
    backbone: BackboneRef | None = Field(None, description="The network that all tasks share; required.")
    head: HeadRef | None = Field(None, description="Default: the task's.")
    loss: Losses | None = Field(None, description="One, or a list with weights; default: the head's, or the task's.")
    metrics: tuple[Ref, ...] | None = Field(None, description="Default: the task's.")
    strategy: str | None = Field(
        None, description="A named way of fine-tuning, which fills in what this file leaves out of the sections below."
    )
    freeze: FreezeRef = Field(FreezeRef(name="none"), description="What does not train.")
    adapter: Ref | None = Field(
        None, description="New small parameters that train in place of the backbone's own (lora); default: none."
    )
    regularizers: Refs = Field((), description="Terms that keep weights or features near the start, or small.")
    image: ImageConfig = ImageConfig()
    augment: tuple[str | dict[str, Any], ...] = Field((), description="albumentations transforms by class name.")
    mix: MixConfig | None = Field(None, description="Mixup and cutmix, for tasks whose labels can be mixed.")
    optimizer: OptimizerRef = Field(OptimizerRef(), description="An optimizer of torch.optim, with rates by place.")
    schedule: ScheduleRef = Field(ScheduleRef(), description="How the learning rate changes.")
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    plugins: PluginsConfig = PluginsConfig()
    provenance: dict[str, Any] | None = Field(None, description="Written by a run; not read.")


def parse(document: Document) -> tuple[Config | None, list[Problem]]:
    """The typed config, or all that is wrong with it at this level."""
    try:
        return Config.model_validate(document.data), []
    except ValidationError as error:
        return None, validation_problems(error, Config, (), document)


def parse_rest(document: Document, problems: Iterable[Problem]) -> Config | None:
    """The config without the parts that `problems` name, so that mistakes in the others can be told with them.

    None where that leaves no config, or where others are judged by such a part: they may be right.
    """
    data = copy.deepcopy(document.data)
    for problem in problems:
        path = problem.path.partition("[")[0].split(".")
        if len(path) == 1 and path[0] in ("", "task", "tasks", "data", "backbone", "plugins"):
            return None
        within: Any = data
        for key in path[:-1]:
            within = within.get(key) if isinstance(within, dict) else None
        if isinstance(within, dict):
            within.pop(path[-1], None)
    if not {"task", "tasks"} & data.keys() or not {"data", "tasks"} & data.keys():  # one of the unknown keys is meant
        return None
    try:
        return Config.model_validate(data)
    except ValidationError:
        return None
