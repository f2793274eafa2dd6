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

from ftengine.config_refs import BackboneRef, DataRef, HeadRef, Losses, Ref, Section
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


class EmaConfig(Section):
    """An exponential moving average of the weights, used for evaluation and saved as the model."""

    shorthand = ({"type": "number"}, {"const": True})
    forms = "true, a decay below 1, a mapping, or null"

    decay: float = Field(0.999, gt=0, lt=1, description="Weight of the average at each step.")
    warmup: bool = Field(True, description="Use min(decay, (1 + n) / (10 + n)) at the n-th step.")

    @model_validator(mode="before")
    @classmethod
    def _from_decay(cls, value: Any) -> Any:
        return {"decay": value} if isinstance(value, float) else {} if value is True else value


class EarlyStopping(Section):
    """Stop when the monitored value has not improved for a while."""

    shorthand = ({"type": "integer", "minimum": 1},)
    forms = "a patience in evaluations, a mapping with `patience`, or null"

    patience: int = Field(ge=1, description="Evaluations without an improvement before the run stops.")
    min_delta: float = Field(0.0, ge=0, description="Smallest change that counts as an improvement.")

    @model_validator(mode="before")
    @classmethod
    def _from_patience(cls, value: Any) -> Any:
        return {"patience": value} if isinstance(value, int) and not isinstance(value, bool) else value


class TrainConfig(Section):
    """How long, how large, how precise."""

    epochs: int = Field(10, ge=1, description="Passes over the training data.")
    batch_size: int = Field(32, ge=1, description="Samples in each optimizer step.")
    accumulate: int = Field(1, ge=1, description="Parts that each batch is computed in; divides batch_size.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Of forward and backward; auto: bf16 where the device computes in it, else fp16 or fp32."
    )
    channels_last: Literal["auto"] | bool = Field(
        "auto", description="Memory format; auto: for convolutional backbones."
    )
    compile: bool = Field(False, description="Compile the backbone with torch.compile.")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto | cpu | cuda | cuda:N | mps")
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto", description="Processes that load data; auto: none on a CPU, up to 8 with a GPU."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="All randomness of the run follows from it.")
    clip_norm: float | None = Field(None, gt=0, description="Largest norm of the gradient of all parameters.")
    ema: EmaConfig | None = Field(None, description="Average the weights; true, a decay, or options.")
    early_stopping: EarlyStopping | None = Field(None, description="A patience, or options.")
    eval_every: int = Field(1, ge=1, description="Epochs between evaluations; the last one is always evaluated.")
    eval_batch_size: int | None = Field(None, ge=1, description="Batch size of evaluation; default: batch_size.")
    pictures: int = Field(
        4, ge=0, description="Images of the val split to draw at each evaluation, truth beside prediction."
    )
    log_every: int = Field(10, ge=1, description="Steps between logged training losses.")
    monitor: str | None = Field(
        None, description="What the best checkpoint is chosen by: loss, or a metric; default: the first metric."
    )

    @model_validator(mode="after")
    def _divides(self) -> TrainConfig:
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}")
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
    freeze: Ref = Field(Ref(name="none"), description="What does not train.")
    image: ImageConfig = ImageConfig()
    augment: tuple[str | dict[str, Any], ...] = Field((), description="albumentations transforms by class name.")
    optimizer: Ref = Field(Ref(name="adamw"), description="An optimizer of torch.optim.")
    schedule: Ref = Field(Ref(name="cosine"), description="How the learning rate changes.")
    train: TrainConfig = TrainConfig()
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
