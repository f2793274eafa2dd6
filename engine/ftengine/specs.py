"""The specs: what a plugin says of its components. A plugin module imports them from :mod:`ftengine.plugin`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ftengine.vocabulary import Fit, Input


class Options(BaseModel):
    """Base of every component's options: unknown keys, infinities and NaN are refused, values are frozen.

    Give each field a type, a default where one makes sense, and ``Field(description=...)``: listings, errors,
    the JSON Schema and the reference are made from them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class DatasetOptions(Options):
    """Base of every dataset's options: what each data format has in common.

    `train`, `val` and `test` say where a split is; a format narrows their type. With `val` (or `test`) left out,
    the engine holds `val_fraction` (`test_fraction`) of the training split out instead.
    """

    root: Path = Field(Path("."), description="Folder that relative paths start from.")
    train: Any = Field(None, description="Where the training split is.")
    val: Any = Field(None, description="Where the validation split is; held out of `train` if left out.")
    test: Any = Field(None, description="Where the test split is, if there is one.")
    val_fraction: float = Field(
        0.2, gt=0, lt=1, description="Part of `train` held out for validation when `val` is left out."
    )
    test_fraction: float = Field(
        0.0, ge=0, lt=1, description="Part of `train` held out for testing when `test` is left out."
    )
    split_seed: int = Field(0, ge=0, description="Seed of the held-out split.")

    @model_validator(mode="after")
    def _leaves_something(self) -> DatasetOptions:
        held = (self.val_fraction if self.val is None else 0) + (self.test_fraction if self.test is None else 0)
        if held >= 1:
            raise ValueError(f"val_fraction and test_fraction hold out {held:g} of `train`, which leaves nothing of it")
        return self

    def target_fields(self) -> frozenset[str] | None:
        """The target fields these options provide, or None for all that the spec declares."""
        return None

    def clip_frames(self) -> int | None:
        """How many frames each sample has, which is then a clip; None: it is an image. New in API 1.1."""
        return None


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a plugin says of one component. `factory` is ``"module:callable"``, called as ``f(options, context)``.

    `requires` names distributions it needs beyond its package's own; a missing one is reported when it is used.
    `example` holds options to try it with, needed where some have no default; `example_config` what else a config must
    say then, such as ``{"image": {"size": 256}}``.
    """

    kind: ClassVar[str] = ""

    name: str
    factory: str
    summary: str
    options: type[Options] = Options
    requires: tuple[str, ...] = ()
    example: Mapping[str, Any] = field(default_factory=dict)
    example_config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Defaults:
    """What a task uses where a config is silent; names are looked up within the task."""

    head: str
    loss: str
    metrics: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TaskSpec(Spec):
    """A task: what :class:`ftengine.protocols.Task` does.

    `targets` maps each target field that the task can learn from (:data:`ftengine.protocols.TARGET_FIELDS`) to the
    defaults used with it. `image_size` and `image_fit` are the defaults of ``image.size`` and ``image.fit``. `soft` are
    the target fields that ``Task.soften`` can give as probabilities, so that images may be mixed.
    """

    kind: ClassVar[str] = "task"
    targets: Mapping[str, Defaults] = field(default_factory=dict)
    image_size: int = 224
    image_fit: Fit = "crop"
    soft: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BackboneSpec(Spec):
    """A backbone. `levels`: the stages in order, which are the feature levels it offers (``c1`` at stride 2 …).

    `weights` are the names of the published weights it knows, `default_weights` the one that ``weights: default`` means
    (None: there is none). `open_weights`: any name is accepted until a run is built, since only its library knows them.
    `input` is what it takes: images, or clips of several frames (new in API 1.1).
    """

    kind: ClassVar[str] = "backbone"
    levels: tuple[str, ...] = ("c1", "c2", "c3", "c4", "c5")
    weights: tuple[str, ...] = ()
    default_weights: str | None = None
    open_weights: bool = False
    input: Input = "image"


@dataclass(frozen=True, kw_only=True)
class HeadSpec(Spec):
    """A head of `task`. `levels` are the feature levels it must have; empty: the backbone's last one.

    `loss` is used with it where a config names none; left out, the task's default is. `weights` are names of published
    weights of head and backbone together. `windows`: it can merge its outputs for overlapping windows of an image.
    `input`: what the features are of that it reads, images or clips (new in API 1.1).
    """

    kind: ClassVar[str] = "head"
    task: str
    levels: tuple[str, ...] = ()
    loss: str | None = None
    weights: tuple[str, ...] = ()
    windows: bool = False
    input: Input = "image"


@dataclass(frozen=True, kw_only=True)
class LossSpec(Spec):
    """A loss of `task`, for the given heads and target fields only, where they are named.

    `soft`: it also takes what ``Task.soften`` returns, class probabilities in place of class ids.
    """

    kind: ClassVar[str] = "loss"
    task: str
    heads: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    soft: bool = False


@dataclass(frozen=True, kw_only=True)
class MetricSpec(Spec):
    """A metric of `task`. `primary` is the key of ``compute()`` that the best checkpoint is chosen by.

    It may hold options' names in braces: ``top{k}_accuracy``. `others` are further keys of the same mode.
    """

    kind: ClassVar[str] = "metric"
    task: str
    primary: str
    mode: Literal["max", "min"] = "max"
    others: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FreezeSpec(Spec):
    """A freeze policy: which stages or parameters do not train, as a pure function of progress."""

    kind: ClassVar[str] = "freeze"


@dataclass(frozen=True, kw_only=True)
class RegularizerSpec(Spec):
    """A regularizer: terms of the weights or of the features that are added to the loss of each training step."""

    kind: ClassVar[str] = "regularizer"


@dataclass(frozen=True, kw_only=True)
class AdapterSpec(Spec):
    """An adapter: small new parameters inside a backbone whose own do not train, merged into them for export."""

    kind: ClassVar[str] = "adapter"


STRATEGY_SECTIONS = ("freeze", "adapter", "regularizers", "mix", "optimizer", "schedule", "train")
"""The sections of a config that a strategy may fill in."""


@dataclass(frozen=True, kw_only=True)
class StrategySpec(Spec):
    """A named way of fine-tuning: `settings` fill in sections of a config (:data:`STRATEGY_SECTIONS`).

    What the config itself gives stays, but for a component's name, which must then be the same. `when` says what the
    strategy is good for, `paper` where it comes from. It has neither factory nor options.
    """

    kind: ClassVar[str] = "strategy"
    factory: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    when: str = ""
    paper: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A data format. `fields` are the target fields it can provide; `options` derives from DatasetOptions."""

    kind: ClassVar[str] = "dataset"
    options: type[DatasetOptions] = DatasetOptions
    fields: tuple[str, ...] = ()
