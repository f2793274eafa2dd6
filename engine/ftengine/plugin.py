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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy

from ftengine.specs import (
    AdapterSpec,
    BackboneSpec,
    DatasetOptions,
    DatasetSpec,
    Defaults,
    FreezeSpec,
    HeadSpec,
    LossSpec,
    MetricSpec,
    Options,
    RegularizerSpec,
    Spec,
    StrategySpec,
    TaskSpec,
)

__all__ = [
    "API_VERSION",
    "AdapterSpec",
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
    "RegularizerSpec",
    "RunInfo",
    "Spec",
    "StrategySpec",
    "TaskSpec",
    "hookimpl",
]

API_VERSION = (1, 1)
"""(major, minor) of the plugin interface. A plugin states what it was written for as ``FTENGINE_API``."""

ENTRY_POINT_GROUP = "ftengine"

hookspec = pluggy.HookspecMarker("ftengine")
hookimpl = pluggy.HookimplMarker("ftengine")


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
    def register_regularizers(self) -> Iterable[RegularizerSpec]:
        """Regularizers that this plugin adds."""
        raise NotImplementedError

    @hookspec
    def register_adapters(self) -> Iterable[AdapterSpec]:
        """Adapters (parameter-efficient fine-tuning) that this plugin adds."""
        raise NotImplementedError

    @hookspec
    def register_strategies(self) -> Iterable[StrategySpec]:
        """Named strategies that this plugin adds: settings of the components above."""
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
    "register_regularizers": RegularizerSpec,
    "register_adapters": AdapterSpec,
    "register_strategies": StrategySpec,
    "register_datasets": DatasetSpec,
}
