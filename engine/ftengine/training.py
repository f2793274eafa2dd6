"""Everything that a training run is made of and remembers; the loop moves it, checkpoints hold it."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ftengine.audit import Audit
from ftengine.averaging import Average, Swa
from ftengine.data import Split, Stream
from ftengine.dist import World
from ftengine.errors import FtengineError, TrainingError, name_list
from ftengine.evaluate import Evaluation, Show
from ftengine.exchange import Exchange
from ftengine.freeze import Freezer
from ftengine.gallery import Gallery
from ftengine.guard import KeptBuffers, NumberGuard
from ftengine.judge import Judge
from ftengine.loading import LoaderSettings
from ftengine.measure import relative_gradients
from ftengine.memory import PeakMemory
from ftengine.meter import Meter
from ftengine.micro_batch import MicroBatches
from ftengine.mixing import Mixing
from ftengine.model import Model, summarise
from ftengine.parallel import check_alike
from ftengine.plan import Plan
from ftengine.precision import Precision
from ftengine.protocols import Adapter, Metric, Prediction, Progress, Task
from ftengine.quarantine import Journal
from ftengine.regularize import Regularizers
from ftengine.resume import snapshot
from ftengine.rollback import settle
from ftengine.saving import Saver
from ftengine.signals import Interrupted, Signals
from ftengine.track import Tracker


@dataclass
class Training:
    """A run in progress. `step` counts the finished optimizer steps, of `steps`.

    Each process of the run's `world` has one, with the same values; the first one writes.

    `start` is the SHA-256 of the file of the weights it started from, `start_values` what these gave on `val`.
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
    store: Saver
    signals: Signals
    average: Average | None = None
    mixing: Mixing | None = None
    adapter: Adapter | None = None
    regularizers: Regularizers = field(default_factory=lambda: Regularizers(()))
    step: int = 0
    started: float = field(default_factory=time.perf_counter)
    start: str = ""
    start_values: dict[str, float] = field(default_factory=dict)
    world: World = field(default_factory=World)
    journal: Journal | None = None

    def __post_init__(self) -> None:
        config = self.plan.config.train
        self.steps_per_epoch = max(len(stream.train) // config.batch for stream in self.streams.values())
        self.steps = self.steps_per_epoch * config.epochs
        fused = all(group.get("fused") for group in self.optimizer.param_groups)
        self.guard = NumberGuard(self.steps_per_epoch, config.on_non_finite, on_device=fused)
        models = [self.model] if self.average is None else [self.model, self.average.model]
        self.buffers = KeptBuffers(models if config.on_non_finite.policy != "stop" else [])
        own = config.batch // self.world.size
        self.micro = MicroBatches(config.accumulate, own, config.auto_micro_batch, self._most_parts)
        self.exchange = Exchange(self.world, self.model)
        self.rollback_to: int | None = None  # the step of the checkpoint to go back to, where that is the policy
        self.gradient_norm: torch.Tensor | None = None  # of the last step
        self.meter = Meter()
        self.audit = Audit()
        self.judge = Judge(self.plan.monitor.mode, config.early_stopping)
        self.gallery = Gallery(self.tracker.info.directory, config.pictures, self.tracker.warn)
        self.is_best = False
        self.epoch_loss = (0.0, 0)  # sum of the mean losses logged in this epoch, and the steps they stand for
        self.logged_at = time.perf_counter()
        self.finished_epochs = -1  # whose ends are evaluated, if they are to be; -1 before the evaluation of the start
        self.saved, self.saved_at = (-1, -1), time.perf_counter()
        self.images = 0
        self.seconds = 0.0
        self.trained = 0  # the most parameters that trained at any time
        self.memory = PeakMemory(self.model, self.precision.device)

    @property
    def epoch(self) -> float:
        """Finished epochs, with the part of the current one."""
        return round(self.step / self.steps_per_epoch, 4)

    @property
    def judged(self) -> Model:
        """What is evaluated and saved as the model: the average, as soon as there is one."""
        return self.average.model if self.average is not None and self.average.ready else self.model

    @property
    def at_open_end(self) -> bool:
        """Whether what comes next is the end of an epoch that is trained, or the evaluation before the first step."""
        return self.finished_epochs < self.step // self.steps_per_epoch

    def lr_factor(self, step: int) -> float:
        """By what every learning rate is multiplied at `step`."""
        average = self.average
        if isinstance(average, Swa) and average.lr is not None and step // self.steps_per_epoch >= average.first:
            return average.lr
        return self.plan.schedule.factor(step, self.steps, self.steps_per_epoch, self.judge.history)

    # --- freezing --------------------------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """Freeze what the policy says for this epoch, and show the table of stages if that changed anything."""
        self.model.train()
        progress = Progress(epoch, self.plan.config.train.epochs)
        wanted = self.freezer.policy.batches_to_measure(progress)
        if wanted:
            measured = relative_gradients(self, wanted)
            self.tracker.say(self.freezer.policy.measured(self.world.from_main(lambda: measured)))
        if not self.freezer.apply(progress):
            return
        self.audit.update(self.model, self.freezer.held(), epoch)
        for group in self.optimizer.param_groups:
            group["since"] = max((self.freezer.since.get(id(p), 0) for p in group["params"]), default=0)
        self.trained = max(self.trained, sum(p.numel() for p in self.model.parameters() if p.requires_grad))
        self.tracker.stages(summarise(self.model), self.optimizer.param_groups, epoch)
        self._check_single_images()

    def check_frozen(self) -> None:
        """Raises TrainingError if anything that was frozen to the end has changed."""
        self.audit.check(self.model)

    def _check_single_images(self) -> None:
        config, frozen = self.plan.config.train, set(map(id, self.model.frozen_norms))
        single = any(id(norm) not in frozen for norm in self.model.single_position_norms)
        self.micro.least = 2 if single or self.mixing is not None else 1
        if single and config.batch == config.accumulate * self.world.size:
            raise FtengineError(
                f"train.batch_size {config.batch} in {config.accumulate} parts is one image a part, of which a "
                "BatchNorm layer sees a single value a channel: use larger parts or images, or freeze its stage"
            )

    # --- evaluation ------------------------------------------------------------------------------------------------

    def begin(self, evaluation: Evaluation) -> None:
        """Keep and log what the model gives before the first step. It is not compared: nothing was trained."""
        self.start_values = dict(evaluation.values)
        self.tracker.log(0, 0.0, "val", evaluation.values)
        self.tracker.evaluated(0, self._headline(evaluation.values), None, best=False)
        self.logged_at = time.perf_counter()

    def evaluated(self, evaluation: Evaluation, epoch: int) -> None:
        """Log an evaluation of the val split, and decide whether it is the best so far."""
        self.is_best = self.judge(evaluation, self.step, epoch)
        self.tracker.log(self.step, self.epoch, "val", evaluation.values)
        total, count = self.epoch_loss
        self.tracker.evaluated(epoch, self._headline(evaluation.values), total / max(1, count), best=self.is_best)
        self.epoch_loss = (0.0, 0)
        self.logged_at = time.perf_counter()  # the time of an evaluation is not the training's

    def _headline(self, values: Mapping[str, float]) -> dict[str, float]:
        """What of an evaluation a person sees at once: the loss, what is monitored, and each metric's primary value."""
        names = {"loss", self.plan.monitor.name}
        for name, task in self.plan.tasks.items():
            names |= {f"{name}/{metric.primary}" if self.plan.joint else metric.primary for metric in task.metrics}
        return {name: value for name, value in values.items() if name in names}

    def show_pictures(self) -> Show:
        """What draws the first images of an evaluation after this step."""
        page = self.gallery.page(self.step)

        def show(task: str, split: Split, indices: Sequence[int], predictions: Sequence[Prediction]) -> None:
            page.show(task, self.tasks[task], split.data, split.encoders[task], indices, predictions)

        return show

    def log_training(self) -> None:
        """Write the mean losses since the last time; a synchronisation point."""
        self.check_numbers()
        self.share_bad_samples()
        self.store.poll()
        steps, samples = self.meter.steps, self.meter.samples
        means = self.meter.take()
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
        if self.gradient_norm is not None:
            rates["gradient_norm"] = float(self.gradient_norm)
        self.tracker.log(self.step, self.epoch, "train", {**means, **rates})
        self.logged_at = now

    def check_numbers(self) -> None:
        """Whatever broke since the last time is said, and dealt with as the config wants; a synchronisation point."""
        settle(self)

    def keep_buffers(self) -> None:
        """Before a step: a copy of what it changes beside the weights, unless one before is still to be judged."""
        if not self.guard.waiting:
            self.buffers.keep()

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def save_is_due(self, epoch: int | None = None) -> bool:
        """Whether the config wants a checkpoint now: at the end of `epoch` epochs, or (None) after any step."""
        config = self.plan.config.checkpoint
        if epoch is not None:
            return config.every_epochs is not None and epoch % config.every_epochs == 0
        if config.every_steps is not None and self.step % config.every_steps == 0:
            return True
        return self.exchange.due if self.world.size > 1 else self.minutes_are_over()

    def minutes_are_over(self) -> bool:
        """Whether it is time for a checkpoint by this process's clock."""
        minutes = self.plan.config.checkpoint.every_minutes
        return minutes is not None and time.perf_counter() - self.saved_at >= 60 * minutes

    def check_signals(self) -> None:
        """After a step: raises Interrupted if a process of the run had received a signal."""
        if self.world.size == 1:
            self.signals.check()
        elif self.exchange.stop or self.step == self.tracker.stop_after:
            self.signals.received = signal.Signals(self.exchange.stop or signal.SIGTERM)
            raise Interrupted(self.signals.received.name)

    def _most_parts(self, parts: int) -> int:
        return self.world.largest([parts])[0]

    def save(self, *, planned: bool = True) -> None:
        """Save the state after `step` steps and `finished_epochs`, if it is not yet, now or in the background.

        A run that breaks goes back to what was saved as `planned`, so that it makes no difference where it was stopped.
        """
        if self.saved == (self.step, self.finished_epochs):
            return
        started = time.perf_counter()
        self.check_numbers()
        self.share_bad_samples()
        self._check_parameters()
        check_alike(self.world, self.model, f"after step {self.step}")
        if planned and self.guard.config.policy == "rollback":
            self.rollback_to = self.step
        if self.world.main:
            self.store.put(self.step, snapshot(self), best=self.is_best)
        self.is_best = False
        self.saved, self.saved_at = (self.step, self.finished_epochs), time.perf_counter()
        self.logged_at += time.perf_counter() - started  # the time of saving is not the training's

    def share_bad_samples(self) -> None:
        """All processes of the run know of what any of them could not read."""
        if self.journal is not None:
            self.journal.share()

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
