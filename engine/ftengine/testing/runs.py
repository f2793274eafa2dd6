"""Checks of whole small runs: with any component, a run is a function of its config, wherever it is stopped."""

from __future__ import annotations

import gc
import shutil
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from ftengine.build import make_streams, make_tasks
from ftengine.data import Stream
from ftengine.document import Document
from ftengine.errors import FtengineError, name_list
from ftengine.identical import Comparison, compare_runs, metric_lines
from ftengine.plan import Plan
from ftengine.plugin import DatasetOptions
from ftengine.resolve import resolve
from ftengine.run import execute
from ftengine.run_config import run_document
from ftengine.signals import Interrupted, Signals
from ftengine.testing.backbones import built
from ftengine.testing.checks import Nonconformity, NotApplicable, check
from ftengine.testing.randomness import global_seeds
from ftengine.testing.scratch import Scratch
from ftengine.testing.subject import SMALL, Subject, merged

STEPS = 8
"""So many steps a run takes at most."""

LARGE = 20_000_000
"""Parameters from which on a backbone is large: it is trained for two steps, with images as few as possible."""

HELD_OUT = 64
"""Samples at most that a dataset without a validation split holds out: every run evaluates all of them."""

SHOWN = 3
"""Differences that are told."""


@dataclass
class SmallRun:
    """How the small run of a component is run as a whole: up to step `stop`, and interrupted after step `at`."""

    subject: Subject
    plan: Plan
    at: int
    stop: int | None
    folder: Scratch = field(default_factory=Scratch)

    @classmethod
    def of(cls, subject: Subject) -> SmallRun:
        """The subject's small run, of at most two epochs."""
        large = subject.kind == "backbone" and _parameters(subject) > LARGE
        small = merged(subject.config, _fewer(subject, large=large))
        plan = resolve(Document(small))
        streams = make_streams(plan, make_tasks(plan))
        held_out = _held_out(subject, streams)
        if held_out is not None:
            plan = resolve(Document(merged(small, {"data": {"val_fraction": held_out}})))
            streams = make_streams(plan, make_tasks(plan))
        config = plan.config.train
        per_epoch = max(len(stream.train) // config.batch for stream in streams.values())
        steps = per_epoch * config.epochs
        if steps < 2:
            raise FtengineError(
                f"the small run has {steps} step, and cannot be stopped on its way: give it at least two batches of "
                f"{config.batch} samples to train on"
            )
        stop = min(steps, 2 if large else STEPS)
        # In the middle of the second epoch, if that is to be reached: what has changed at its beginning is kept.
        at = per_epoch + 1 if 1 < per_epoch < stop - 1 else min(per_epoch, stop) // 2 or 1
        return cls(subject, plan, at, None if stop == steps else stop)

    @property
    def whole(self) -> Path:
        """The directory of a run without interruption, which is there."""
        return self.folder.path / "whole"

    def begin(self, name: str, seed: int, *, stop: int | None = None, plan: Plan | None = None) -> Path:
        """A new run up to `stop` (None: its end), while the global generators are other ones by `seed`."""
        directory = self.folder.path / name
        shutil.rmtree(directory, ignore_errors=True)  # of one that has failed
        self._execute(plan or self.plan, directory, seed, stop or self.stop, resume=False)
        return directory

    def go_on(self, directory: Path, seed: int) -> None:
        """Resume a run, as its directory describes it, up to its end."""
        self._execute(resolve(run_document(directory), trained=True), directory, seed, self.stop, resume=True)

    def _execute(self, plan: Plan, directory: Path, seed: int, stop: int | None, *, resume: bool) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise NotApplicable("a run is stopped by a signal, which only the main thread gets: run the kit there")
        # An experiment tracker that happens to be installed is not to record what is only tried.
        plan = replace(plan, host=plan.host.observed_by(self.subject.component.plugin))
        with Signals() as signals, global_seeds(seed), suppress(Interrupted):
            execute(plan, directory, Console(quiet=True), signals, resume=resume, stop_after=stop)
        stopped = stop is not None and (directory / "checkpoints" / f"step-{stop:08d}").is_dir()
        if signals.received is not None and (signals.received != signal.SIGTERM or not stopped):
            signal.raise_signal(signals.received)  # it was meant for the kit

    def compared(self, directory: Path) -> Comparison:
        """The whole run and the one in `directory`, which is removed: large ones would fill the disk."""
        found = compare_runs(self.whole, directory)
        shutil.rmtree(directory)
        return found

    @cached_property
    def resumed(self) -> Comparison:
        """The whole run and one that is stopped and goes on."""
        directory = self.begin("resumed", seed=3, stop=self.at)
        self.go_on(directory, seed=4)
        return self.compared(directory)

    @cached_property
    def again(self) -> Comparison:
        """The whole run and another one of the same config; the same if one that was stopped is the same, too."""
        with suppress(Exception):  # that a resume fails is said by its own check
            if not self.resumed.differences:
                return self.resumed
        return self.compared(self.begin("again", seed=2))


class _Latest:
    """The small run of the component that was asked for last: its checks share the run without interruption.

    Not kept with the subject: those of a whole plugin would fill the disk.
    """

    run: SmallRun | None = None

    @classmethod
    def of(cls, subject: Subject) -> SmallRun:
        if cls.run is None or cls.run.subject is not subject:
            if cls.run is not None:
                cls.run.folder.cleanup()
                cls.run = None
                # A run is full of cycles, and Python counts objects rather than the bytes of their tensors.
                gc.collect()
            made = SmallRun.of(subject)
            made.begin("whole", seed=1)
            cls.run = made
        return cls.run


def _fewer(subject: Subject, *, large: bool) -> dict[str, Any]:
    """What is changed in the small run for less to compute. Data that an author gives stay as they are."""
    config = subject.config
    own_data, epochs = config["data"] != SMALL["data"], config["train"]["epochs"]
    if not large:
        return {**({} if own_data else {"data": {"limit": 16}}), "train": {"epochs": min(epochs, 2)}}
    few = {} if own_data else {"data": {"limit": 16, "val_fraction": 0.1}}
    # Without a momentum for each of its weights, which would have to be written, too.
    plain = {"optimizer": {"momentum": 0.0}} if config["optimizer"] == SMALL["optimizer"] else {}
    alone = {"checkpoint": {"background": False}}  # without a copy of all weights, which is made for nothing here
    return {**few, **plain, **alone, "train": {"epochs": 1, "batch_size": 2, "pictures": 0}}


def _held_out(subject: Subject, streams: Mapping[str, Stream]) -> float | None:
    """The part of a dataset under check that is held out for validation, where it would be too many samples."""
    if subject.kind != "dataset":
        return None
    options = subject.part.options
    assert isinstance(options, DatasetOptions)
    if options.val is not None:
        return None
    (stream,) = streams.values()
    return None if len(stream.val) <= HELD_OUT else HELD_OUT / (len(stream.train) + len(stream.val))


def _parameters(subject: Subject) -> int:
    number = sum(parameter.numel() for parameter in built(subject).parameters())
    built.cache_clear()  # the run needs the memory
    return number


@check()
def run_is_finite(subject: Subject) -> None:
    """A whole small run with it goes through, with finite losses and measures."""
    run = _Latest.of(subject)
    wanted = {run.plan.monitor.name} | ({subject.part.primary} if subject.kind == "metric" else set())
    for line in metric_lines(run.whole):
        place = f"{line['split']} at step {line['step']}"
        for name, value in line.items():
            measured = line["split"] == "train" or name.startswith("loss") or name in wanted
            if value is None and measured:
                raise Nonconformity(f"a finite {name}, {place}", "NaN or infinity")
        if line["split"] != "train":
            missing = sorted(wanted - line.keys())
            if missing and not run.plan.joint:
                raise Nonconformity(f"values of {name_list(wanted)}, {place}", f"none of {name_list(missing)}")


@check()
def run_repeats(subject: Subject) -> None:
    """Two runs of one config are the same, bit for bit: nothing in it is random but by the run's own seed."""
    found = _Latest.of(subject).again
    if found.differences:
        raise Nonconformity(
            "that two runs of one config are the same, bit for bit",
            f"{_told(found)}: it has randomness that is not the run's (random, numpy, the time), or keeps a state "
            "outside of it",
        )


@check()
def run_resumes(subject: Subject) -> None:
    """A run that is stopped in the middle of an epoch and resumed is the same, bit for bit, as one that is not."""
    run = _Latest.of(subject)
    found = run.resumed
    if not found.differences:
        return
    why = (
        "two runs without a stop differ too: see run_repeats"
        if run.again.differences
        else "two runs without a stop are the same, so that it keeps a state which no checkpoint holds"
    )
    raise Nonconformity(
        f"that a run which is stopped after step {run.at} and resumed is the same, bit for bit, as one that is not",
        f"{_told(found)}; {why}",
    )


@check("dataset")
def workers_agree(subject: Subject) -> None:
    """A run whose samples are read by another process is the same, bit for bit, as one that reads them itself."""
    run = _Latest.of(subject)
    plan = run.plan.with_train(workers=1)
    found = run.compared(run.begin("workers", seed=5, plan=plan))
    if found.differences:
        raise Nonconformity("the same run with train.workers: 1 as with 0, bit for bit", _told(found))


def _told(found: Comparison) -> str:
    """The first differences of two runs, and how many there are."""
    told = "; ".join(map(str, found.differences[:SHOWN]))
    return f"{len(found.differences)} differences: {told}"
