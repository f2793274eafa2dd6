"""Everything that a training run is made of and remembers; the loop moves it, checkpoints hold it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ftengine.checkpoint import Checkpoint, Store, load_model
from ftengine.data import LoaderSettings, Split, Stream
from ftengine.ema import Ema
from ftengine.errors import CheckpointError, FtengineError, TrainingError, name_list
from ftengine.evaluate import Evaluation, Show
from ftengine.freeze import Freezer
from ftengine.gallery import Gallery
from ftengine.guard import LossGuard
from ftengine.meter import Meter
from ftengine.model import Model, summarise
from ftengine.optim import load_optimizer_state, optimizer_state
from ftengine.plan import Plan
from ftengine.precision import Precision
from ftengine.protocols import Metric, Prediction, Progress, Task
from ftengine.signals import Signals
from ftengine.track import Tracker


@dataclass
class Best:
    """The best evaluation so far.

    `since` counts the evaluations since `reference`, the last value that was better by early stopping's `min_delta`.
    """

    value: float = math.nan
    step: int = 0
    epoch: int = 0
    values: dict[str, float] = field(default_factory=dict)
    since: int = 0
    reference: float = math.nan


@dataclass
class Training:
    """A run in progress. `step` counts the finished optimizer steps, of `steps`.

    `started` is when it began by this process's clock, had it never been interrupted.
    """

    plan: Plan
    model: Model
    tasks: Mapping[str, Task]
    metrics: Mapping[str, list[Metric]]
    streams: Mapping[str, Stream]
    optimizer: Any
    freezer: Freezer
    precision: Precision
    loader: LoaderSettings
    tracker: Tracker
    store: Store
    signals: Signals
    ema: Ema | None = None
    step: int = 0
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        config = self.plan.config.train
        self.steps_per_epoch = max(len(stream.train) // config.batch_size for stream in self.streams.values())
        self.steps = self.steps_per_epoch * config.epochs
        self.guard = LossGuard(self.steps_per_epoch)
        self.meter = Meter()
        self.best = Best()
        self.gallery = Gallery(self.tracker.info.directory, config.pictures, self.tracker.warn)
        self.is_best = False
        self.epoch_loss = (0.0, 0)  # sum of the mean losses logged in this epoch, and the steps they stand for
        self.logged_step = 0
        self.logged_at = time.perf_counter()
        self.saved_step = -1
        self.images = 0
        self.seconds = 0.0

    @property
    def epoch(self) -> float:
        """Finished epochs, with the part of the current one."""
        return round(self.step / self.steps_per_epoch, 4)

    def apply_freeze(self, epoch: int) -> None:
        """Freeze what the policy says for this epoch, and show the table of stages if that changed anything."""
        if self.freezer.apply(Progress(epoch, self.plan.config.train.epochs)):
            self.tracker.stages(summarise(self.model), self.optimizer.param_groups, epoch)
        config, frozen = self.plan.config.train, set(map(id, self.model.frozen_norms))
        if config.batch_size == config.accumulate and any(
            id(n) not in frozen for n in self.model.single_position_norms
        ):
            raise FtengineError(
                f"train.batch_size {config.batch_size} in {config.accumulate} parts is one image a part, of which a "
                "BatchNorm layer sees a single value a channel: use larger parts or images, or freeze its stage"
            )

    def show_pictures(self) -> Show:
        """What draws the first images of an evaluation after this step."""
        page = self.gallery.page(self.step)

        def show(task: str, split: Split, first: int, predictions: Sequence[Prediction]) -> None:
            page.show(task, self.tasks[task], split.data, split.encoders[task], first, predictions)

        return show

    def log_training(self) -> None:
        """Write the mean losses since the last time; a synchronisation point."""
        self.guard.check()
        steps, samples = self.step - self.logged_step, self.meter.samples
        means = self.meter.take(steps)
        if not means:
            return
        now = time.perf_counter()
        seconds = now - self.logged_at
        self.images, self.seconds = self.images + samples, self.seconds + seconds
        self.epoch_loss = (self.epoch_loss[0] + means["loss"] * steps, self.epoch_loss[1] + steps)
        rates = {
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "images_per_second": samples / seconds,
        }
        self.tracker.log(self.step, self.epoch, "train", {**means, **rates})
        self.logged_step, self.logged_at = self.step, now

    def judge(self, evaluation: Evaluation, epoch: int) -> None:
        """Log an evaluation of the val split, and decide whether it is the best so far.

        One that is not finite never is: neither a value of NaN nor, whatever the metric says of it, a loss of NaN.
        """
        best = self.best
        value = evaluation.monitored if math.isfinite(evaluation.values.get("loss", 0.0)) else math.nan
        self.is_best = self._gain(value, best.value) > 0
        if self.is_best:
            best.value, best.step, best.epoch, best.values = value, self.step, epoch, dict(evaluation.values)
        stopping = self.plan.config.train.early_stopping
        if self._gain(value, best.reference) > (stopping.min_delta if stopping else 0.0):
            best.reference, best.since = value, 0
        else:
            best.since += 1
        self.tracker.log(self.step, self.epoch, "val", evaluation.values)
        total, count = self.epoch_loss
        self.tracker.evaluated(epoch, self._headline(evaluation.values), total / max(1, count), self.is_best)
        self.epoch_loss = (0.0, 0)
        self.logged_at = time.perf_counter()  # the time of an evaluation is not the training's

    def _headline(self, values: Mapping[str, float]) -> dict[str, float]:
        """What of an evaluation a person sees at once: the loss, what is monitored, and each metric's primary value."""
        names = {"loss", self.plan.monitor.name}
        for name, task in self.plan.tasks.items():
            names |= {f"{name}/{metric.primary}" if self.plan.joint else metric.primary for metric in task.metrics}
        return {name: value for name, value in values.items() if name in names}

    def _gain(self, value: float, before: float) -> float:
        """How much better `value` is than `before`: infinitely, if there was none; never, if it is not finite."""
        if not math.isfinite(value):
            return -math.inf
        if math.isnan(before):
            return math.inf
        return before - value if self.plan.monitor.mode == "min" else value - before

    def patience_is_over(self) -> bool:
        """Whether early stopping ends the run here."""
        stopping = self.plan.config.train.early_stopping
        return stopping is not None and self.best.since >= stopping.patience

    def save(self) -> None:
        """Save the state after `step` steps, if it is not saved yet."""
        if self.saved_step == self.step:
            return
        started = time.perf_counter()
        self.guard.check()
        self._check_parameters()
        tensors, plain = optimizer_state(self.optimizer, self.model)
        raw = self.model.state_dict()
        average = None if self.ema is None else self.ema.model.state_dict()
        state = {
            "step": self.step,
            "epoch": self.epoch,
            "tasks": {name: task.state() for name, task in self.tasks.items()},
            "data": {name: stream.fingerprint for name, stream in self.streams.items()},
            "best": {key: None if value != value else value for key, value in vars(self.best).items()},
            "optimizer": plain,
            "scaler": self.precision.state(),
            "ema_updates": 0 if self.ema is None else self.ema.updates,
            "epoch_loss": list(self.epoch_loss),
            "meter": self.meter.state(),
            "logged_step": self.logged_step,
            "since_logged": started - self.logged_at,
            "elapsed": started - self.started,
            "images": self.images,
            "seconds": self.seconds,
        }
        path = self.store.save(self.step, average or raw, raw if average else {}, tensors, state, best=self.is_best)
        self.is_best = False
        self.saved_step = self.step
        self.tracker.saved(path)
        self.logged_at += time.perf_counter() - started  # the time of saving is not the training's

    def _check_parameters(self) -> None:
        """Raises TrainingError if a step has broken the model without a loss that shows it; a synchronisation point."""
        parameters = dict(self.model.named_parameters())
        finite = torch.stack([parameter.isfinite().all() for parameter in parameters.values()]).tolist()
        broken = [name for name, good in zip(parameters, finite, strict=True) if not good]
        if broken:
            raise TrainingError(
                f"the parameters are not finite after step {self.step}, and are not saved: {name_list(broken, 3)}\n"
                "  common causes: a learning rate that is too high, or a gradient that is not finite where the loss is"
            )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take a checkpoint's state; raises CheckpointError if it is another run's, or the data have changed."""
        state = checkpoint.state
        for name, stream in self.streams.items():
            if state["data"].get(name) != stream.fingerprint:
                raise CheckpointError(
                    f"{checkpoint.path}: the training data of {name!r} are not those of the run: samples or targets "
                    "have changed since; start a new run (with `backbone.weights: run:DIR` to build on this one)"
                )
        for name, task in self.tasks.items():
            if state["tasks"].get(name) != task.state():
                raise CheckpointError(
                    f"{checkpoint.path}: task {name!r} has learned something else from the training data than the run "
                    f"had\n  the run: {state['tasks'].get(name)}\n  now: {task.state()}"
                )
        load_model(self.model, checkpoint.training or checkpoint.model, checkpoint.path)
        if self.ema is not None:
            load_model(self.ema.model, checkpoint.model, checkpoint.path)
            self.ema.updates = state["ema_updates"]
        load_optimizer_state(self.optimizer, self.model, checkpoint.optimizer, state["optimizer"])
        if state["scaler"]:
            self.precision.scaler.load_state_dict(state["scaler"])
        restored: dict[str, Any] = dict(state["best"])
        restored |= {key: math.nan for key, value in restored.items() if value is None}
        self.best = Best(**restored)
        self.step = self.saved_step = state["step"]
        if self.best.step == self.step:  # it may have been killed between the two pointers to this checkpoint
            self.store.point("best", checkpoint.path)
        self.epoch_loss = (state["epoch_loss"][0], state["epoch_loss"][1])
        self.meter.load(state["meter"], self.precision.device)
        self.started -= state["elapsed"]
        self.logged_step = state["logged_step"]
        self.logged_at = time.perf_counter() - state["since_logged"]
        self.images, self.seconds = state["images"], state["seconds"]


def last_checkpoint(store: Store, run: Path) -> Checkpoint:
    """The checkpoint that a resumed run continues from."""
    path = store.find("last")
    if path is None:
        raise CheckpointError(
            f"{run} has no checkpoint to continue from: expected {store.folder / 'last.json'}; if the run ended before "
            "its first, delete the folder and start it again"
        )
    return store.load(path, for_training=True)
