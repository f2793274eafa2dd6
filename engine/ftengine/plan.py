"""What a config and the installed plugins come to: every part of a run, typed, before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from ftengine.config import Config
from ftengine.config_refs import Ref
from ftengine.document import Document, KeyPath
from ftengine.host import Component, Host
from ftengine.optimizers import Optimizer
from ftengine.plugin import DatasetOptions, Options
from ftengine.schedule import SCHEDULES, Schedule
from ftengine.weight_source import WeightSource


@dataclass(frozen=True)
class Part:
    """A component with its options, and where the config names it."""

    component: Component
    options: Options
    path: KeyPath

    @property
    def spec(self) -> Any:
        return self.component.spec

    @property
    def primary(self) -> str:
        """A metric's primary key, with its options filled in: ``top{k}_accuracy`` is ``top3_accuracy`` for k = 3."""
        primary: str = self.spec.primary
        return primary.format(**self.options.model_dump())

    def data(self) -> dict[str, Any]:
        """As plain data for the resolved config."""
        key = "format" if self.component.kind == "dataset" else "name"
        return {key: self.component.name, **self.options.model_dump(mode="json")}


@dataclass(frozen=True)
class TaskPlan:
    """One task: its parts, the target field it learns from, its factor in the loss, and its stream.

    `losses` are summed with their factors. `head_weights` names the published weights of head and backbone.
    """

    name: str
    task: Part
    head: Part
    head_weights: str | None
    losses: tuple[tuple[Part, float], ...]
    metrics: tuple[Part, ...]
    field: str
    weight: float
    stream: str


@dataclass(frozen=True)
class Monitor:
    """What the best checkpoint is chosen by: a key of a task's metric (None: the sum of losses), and its direction.

    `name` is the key as it is logged.
    """

    task: str | None
    metric: int | None
    key: str
    mode: str
    name: str


@dataclass(frozen=True)
class Plan:
    """Everything that a run is. `streams` maps a stream's name to its dataset, `strategy` names what filled it in."""

    config: Config
    host: Host
    tasks: Mapping[str, TaskPlan]
    streams: Mapping[str, Part]
    backbone: Part
    weights: WeightSource
    freeze: Part
    adapter: Part | None
    regularizers: tuple[Part, ...]
    optimizer: Optimizer
    schedule: Schedule
    monitor: Monitor
    document: Document
    joint: bool
    strategy: str | None = None

    def with_train(self, **changes: Any) -> Plan:
        """The same plan with other values in the section ``train``."""
        train = self.config.train.model_copy(update=changes)
        return replace(self, config=self.config.model_copy(update={"train": train}))

    @property
    def frames(self) -> int | None:
        """How many frames the run's clips have, the fewest where there are several streams; None: it is of images."""
        options = [cast(DatasetOptions, part.options) for part in self.streams.values()]
        return min((frames for one in options if (frames := one.clip_frames()) is not None), default=None)

    def resolved(self) -> dict[str, Any]:
        """Every value, as a config that gives this same run anywhere on this machine."""
        config = self.config
        data: dict[str, Any] = {}
        if self.joint:
            data["tasks"] = {
                name: {**self._task_data(task), "data": self.streams[task.stream].data(), "weight": task.weight}
                for name, task in self.tasks.items()
            }
        else:
            (task,) = self.tasks.values()
            parts = self._task_data(task)
            data["task"] = parts.pop("task")
            data["data"] = self.streams[task.stream].data()
            data |= parts
        weights = {"source": self.weights.text, "allow": list(self.weights.allow)}
        backbone = self.backbone.data()
        data["backbone"] = {"name": backbone.pop("name"), "weights": weights, **backbone}
        data["freeze"] = _beside(config.freeze, self.freeze.data())
        data["adapter"] = None if self.adapter is None else self.adapter.data()
        data["regularizers"] = [part.data() for part in self.regularizers]
        data["image"] = config.image.model_dump(mode="json")
        data["augment"] = list(config.augment)
        data["mix"] = None if config.mix is None else config.mix.model_dump(mode="json")
        optimizer = {"name": self.optimizer.torch_name.lower(), **self.optimizer.model_dump(mode="json")}
        data["optimizer"] = _beside(config.optimizer, optimizer)
        name = next(key for key, model in SCHEDULES.items() if type(self.schedule) is model)
        data["schedule"] = {"name": name, **self.schedule.model_dump(mode="json")}
        data["train"] = config.train.model_dump(mode="json")
        data["checkpoint"] = config.checkpoint.model_dump(mode="json")
        data["plugins"] = config.plugins.model_dump(mode="json")
        return data

    @staticmethod
    def _task_data(task: TaskPlan) -> dict[str, Any]:
        losses = [{**loss.data(), "weight": weight} for loss, weight in task.losses]
        return {
            "task": task.task.data(),
            "head": {**task.head.data(), "weights": task.head_weights},
            "loss": losses[0] if len(losses) == 1 else losses,
            "metrics": [metric.data() for metric in task.metrics],
        }


def _beside(ref: Ref, data: dict[str, Any]) -> dict[str, Any]:
    """A component's data with what the config's section says beside its options."""
    own = ref.model_dump(mode="json", include=set(type(ref).model_fields) - {"name"})
    return {"name": data["name"], **own, **data}
