"""All that a plugin module imports. Nothing here imports torch, and a plugin module should not either.

A plugin is a module named by an entry point of the group ``ftengine``::

    # pyproject.toml
    [project.entry-points.ftengine]
    acme = "acme_vision.plugin"

    # acme_vision/plugin.py
    from pydantic import Field
    from ftengine.plugin import BackboneSpec, Options, hookimpl

    FTENGINE_API = (1, 0)

    class TinyOptions(Options):
        width: int = Field(32, ge=1, description="Channels of the first stage.")

    @hookimpl
    def register_backbones():
        yield BackboneSpec(
            name="tiny",
            factory="acme_vision.models:tiny",
            summary="A two-stage network.",
            options=TinyOptions,
            levels=("c1", "c2"),
        )

A config then says ``backbone: acme/tiny``. The factory is imported only when a run is built, and is called as
``tiny(options, context)``; :mod:`ftengine.protocols` says what each kind receives and returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pluggy
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ftengine.vocabulary import Fit

__all__ = [
    "API_VERSION",
    "BackboneSpec",
    "DatasetOptions",
    "DatasetSpec",
    "Defaults",
    "FreezeSpec",
    "HeadSpec",
    "Hooks",
    "LossSpec",
    "MetricSpec",
    "Options",
    "RunInfo",
    "Spec",
    "TaskSpec",
    "hookimpl",
]

API_VERSION = (1, 0)
"""(major, minor) of the plugin interface. A plugin states what it was written for as ``FTENGINE_API``."""

ENTRY_POINT_GROUP = "ftengine"

hookspec = pluggy.HookspecMarker("ftengine")
hookimpl = pluggy.HookimplMarker("ftengine")


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


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a plugin says of one component. `factory` is ``"module:callable"``, called as ``f(options, context)``.

    `requires` names distributions it needs beyond its package's own; a missing one is reported when it is used.
    """

    kind: ClassVar[str] = ""

    name: str
    factory: str
    summary: str
    options: type[Options] = Options
    requires: tuple[str, ...] = ()


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
    defaults used with it. `image_size` and `image_fit` are the defaults of ``image.size`` and ``image.fit``.
    """

    kind: ClassVar[str] = "task"
    targets: Mapping[str, Defaults] = field(default_factory=dict)
    image_size: int = 224
    image_fit: Fit = "crop"


@dataclass(frozen=True, kw_only=True)
class BackboneSpec(Spec):
    """A backbone. `levels`: the stages in order, which are the feature levels it offers (``c1`` at stride 2 …).

    `weights` are the names of the published weights it knows, `default_weights` the one that ``weights: default`` means
    (None: there is none). `open_weights`: any name is accepted until a run is built, since only its library knows them.
    """

    kind: ClassVar[str] = "backbone"
    levels: tuple[str, ...] = ("c1", "c2", "c3", "c4", "c5")
    weights: tuple[str, ...] = ()
    default_weights: str | None = None
    open_weights: bool = False


@dataclass(frozen=True, kw_only=True)
class HeadSpec(Spec):
    """A head of `task`. `levels` are the feature levels it must have; empty: the backbone's last one.

    `loss` is used with it where a config names none; left out, the task's default is. `weights` are names of published
    weights of head and backbone together. `windows`: it can merge its outputs for overlapping windows of an image.
    """

    kind: ClassVar[str] = "head"
    task: str
    levels: tuple[str, ...] = ()
    loss: str | None = None
    weights: tuple[str, ...] = ()
    windows: bool = False


@dataclass(frozen=True, kw_only=True)
class LossSpec(Spec):
    """A loss of `task`, for the given heads and target fields only, where they are named."""

    kind: ClassVar[str] = "loss"
    task: str
    heads: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


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
class DatasetSpec(Spec):
    """A data format. `fields` are the target fields it can provide; `options` derives from DatasetOptions."""

    kind: ClassVar[str] = "dataset"
    options: type[DatasetOptions] = DatasetOptions
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunInfo:
    """What an observer may know of a run. `config` is the resolved config, as plain data; changing it does nothing."""

    directory: Path
    tasks: tuple[str, ...]
    config: Mapping[str, Any]
    total_steps: int


class Hooks:
    """Every hook there is. A plugin implements those it needs, marked with ``@hookimpl``.

    The ``register_*`` hooks return an iterable of specs. The others are observers: they are told, and can change
    nothing; one that raises is reported once and then left out for the rest of the run.
    """

    @hookspec
    def register_tasks(self) -> Iterable[TaskSpec]:
        """Tasks that this plugin adds."""
        raise NotImplementedError

    @hookspec
    def register_backbones(self) -> Iterable[BackboneSpec]:
        """Backbones that this plugin adds."""
        raise NotImplementedError

    @hookspec
    def register_heads(self) -> Iterable[HeadSpec]:
        """Heads that this plugin adds, each to one task."""
        raise NotImplementedError

    @hookspec
    def register_losses(self) -> Iterable[LossSpec]:
        """Losses that this plugin adds, each to one task."""
        raise NotImplementedError

    @hookspec
    def register_metrics(self) -> Iterable[MetricSpec]:
        """Metrics that this plugin adds, each to one task."""
        raise NotImplementedError

    @hookspec
    def register_freeze_policies(self) -> Iterable[FreezeSpec]:
        """Freeze policies that this plugin adds."""
        raise NotImplementedError

    @hookspec
    def register_datasets(self) -> Iterable[DatasetSpec]:
        """Data formats that this plugin adds."""
        raise NotImplementedError

    @hookspec
    def run_started(self, run: RunInfo) -> None:
        """A run is about to take its first step (also after a resume)."""

    @hookspec
    def metrics_logged(self, run: RunInfo, step: int, values: Mapping[str, Any]) -> None:
        """A line was written to ``metrics.jsonl``; `values` is that line, with ``split``, ``step`` and ``epoch``."""

    @hookspec
    def checkpoint_saved(self, run: RunInfo, path: Path) -> None:
        """A checkpoint became visible at `path`, a folder."""

    @hookspec
    def run_finished(self, run: RunInfo, outcome: str) -> None:
        """A run ended: ``finished``, ``stopped early``, ``interrupted`` or ``failed``."""


SPEC_HOOKS: dict[str, type[Spec]] = {
    "register_tasks": TaskSpec,
    "register_backbones": BackboneSpec,
    "register_heads": HeadSpec,
    "register_losses": LossSpec,
    "register_metrics": MetricSpec,
    "register_freeze_policies": FreezeSpec,
    "register_datasets": DatasetSpec,
}
