"""A run from its directory to its summary: start, resume, finish."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.markup import escape

from ftengine.averaging import Average, Ema, Swa
from ftengine.batch_size import settle_batch_size
from ftengine.build import make_model, make_streams, make_tasks
from ftengine.claim import claim
from ftengine.config_train import TrainConfig
from ftengine.disk import make_folder, publish, require_writable
from ftengine.dist import World
from ftengine.effects import check_effects
from ftengine.errors import ConfigError, DataError, Problem, TrainingError, WorkerError
from ftengine.freeze import Freezer
from ftengine.loading import LoaderSettings
from ftengine.loop import fit
from ftengine.micro_batch import memory_for
from ftengine.mixing import Mixing
from ftengine.model import Model
from ftengine.optim import build_optimizer
from ftengine.parallel import agree_on_signals, check_settings, start_alike, synchronise_norms
from ftengine.plan import Plan
from ftengine.plugin import RunInfo
from ftengine.precision import Precision
from ftengine.quarantine import Journal
from ftengine.recovery import last_checkpoint, leads_to
from ftengine.regularize import make_regularizers
from ftengine.resume import record_samples, restore
from ftengine.saving import Saver, require_room
from ftengine.signals import Interrupted, Signals
from ftengine.start import check_start, load_start, save_start
from ftengine.summary import summarise_run
from ftengine.track import Tracker
from ftengine.training import Training
from ftengine.weights import Coverage
from ftengine.wise_ft import mix_with_start

OUT_OF_MEMORY = "set train.auto_micro_batch: true, or lower train.batch_size, train.eval_batch_size or image.size"


def execute(
    plan: Plan,
    directory: Path,
    console: Console,
    signals: Signals,
    *,
    world: World | None = None,
    resume: bool = False,
    force: bool = False,
    stop_after: int | None = None,
) -> str:
    """Train as `plan` says, in `directory`; returns the outcome. `resume`: continue from the last checkpoint.

    `force`: also with another config or other data than the run had; both configs stay in the directory. `stop_after`:
    a step after which the run stops as by SIGTERM. A signal's name is the outcome where one has stopped it. Raises
    Interrupted where that was before there was anything to save, and nothing is written then. `world`: the processes
    of the run, which all call this.
    """
    world = world or World()
    with ExitStack() as held:
        if resume and world.main:
            held.enter_context(claim(directory))
        elif world.main:
            require_writable(directory)
        with signals.at_once():
            training = assemble(plan, directory, console, signals, world, resume=resume, force=force)
        plan = training.plan  # with a number of samples in a step
        agree_on_signals(world, signals)
        if force and world.main:
            write_resolved(plan, directory, until=training.step)
        if not resume and world.main:
            require_room(training)
            make_folder(directory)
            held.enter_context(claim(directory))
            write_resolved(plan, directory)
            record_samples(training)
            training.start = save_start(directory, training.model)
        training.start = world.from_main(lambda: training.start)
        tracker = training.tracker
        tracker.stop_after = stop_after
        list_bad_samples(training, directory)
        tracker.start(training.step)
        outcome = "failed"
        try:
            with training.store, memory_for("in this run", OUT_OF_MEMORY):
                ended = fit(training)
                if plan.config.train.wise_ft is not None and ended != "interrupted":
                    mix_with_start(training, plan.config.train.wise_ft, directory)
            if ended != "interrupted":
                summarise_run(training, directory, console)
                training.share_bad_samples()
            outcome = ended
        except Interrupted:  # all that was trained is saved
            outcome = "interrupted"
        except (TrainingError, WorkerError, DataError) as error:
            last, _ = leads_to(training.store, "last")
            stays = f"the last good checkpoint stays: {last}" if last else "there is no checkpoint yet"
            raise type(error)(f"{error}\n  {stays}") from error
        finally:
            tracker.finish(outcome)
        if signals.received is not None and outcome == "interrupted":
            console.print(f"stopped by {signals.received.name} after step {training.step}; everything is saved")
            console.print(f"continue with: ftengine run --resume {shlex.quote(str(directory))}", soft_wrap=True)
            return signals.received.name
    return outcome


def assemble(
    plan: Plan,
    directory: Path,
    console: Console,
    signals: Signals,
    world: World | None = None,
    *,
    resume: bool,
    force: bool = False,
) -> Training:
    """Build every part of a run, and say what was built."""
    world = world or World()
    if plan.config.train.batch_size == "auto":
        if resume:
            raise ConfigError([Problem("train.batch_size", "auto is found where a run starts; give the run's number")])
        if world.size > 1:
            raise ConfigError(
                [Problem("train.batch_size", f"auto is not found by {world.size} processes together; give a number")]
            )

        def of(trial: Plan, quiet: Console) -> Training:
            return assemble(trial, directory, quiet, signals, resume=False)

        plan = settle_batch_size(plan, of, console)
    tasks = make_tasks(plan)
    streams = make_streams(plan, tasks)
    built = make_model(plan, tasks, pretrained=not resume and world.main)  # the others are handed the weights
    model = built.model
    config = plan.config.train
    precision = Precision(config, model.backbone.channels_last, world.launch)
    check_settings(config, world.size, precision.device)
    if config.sync_batchnorm and world.size > 1:
        synchronise_norms(model)
    precision.place(model)
    start_alike(world, model, streams, plan.resolved())
    announce(plan, precision, streams, built.coverage, console, resume=resume)
    steps = max(len(stream.train) // config.batch for stream in streams.values()) * config.epochs
    info = RunInfo(directory, tuple(plan.tasks), plan.resolved(), steps)
    tracker = Tracker(info, plan.host, console, config.epochs, silent=not world.main)
    training = Training(
        plan=plan,
        model=model,
        tasks=tasks,
        metrics=built.metrics,
        streams=streams,
        optimizer=build_optimizer(model, plan.optimizer, plan.config.optimizer),
        freezer=Freezer(model, built.freeze, plan.config.freeze.frozen_norm),
        precision=precision,
        loader=replace(loader_settings(config, precision.device), check=signals.check),
        tracker=tracker,
        store=Saver(directory, plan.config.checkpoint, tracker.saved, tracker.warn),
        signals=signals,
        average=make_average(model, config),
        mixing=None if plan.config.mix is None else Mixing(plan.config.mix, tasks),
        adapter=built.adapter,
        world=world,
    )
    if resume:
        last = world.from_main(lambda: last_checkpoint(training.store, directory, tracker.warn))
        restore(training, last, force=force)
        training.tracker.rewind(training.step, evaluated=not training.at_open_end)
        console.print(f"continuing after step {training.step} of {training.steps}")
    if plan.regularizers:
        start = world.from_main(lambda: load_start(directory, training.start)) if resume else model.state_dict()
        training.regularizers = make_regularizers(plan, model, start, adapted=built.adapter is not None)
    elif resume:
        world.from_main(lambda: check_start(directory, training.start))  # the report at the end will need it
    check_effects(plan, training.freezer, training.regularizers)
    return training


def list_bad_samples(training: Training, directory: Path) -> None:
    """Keep the list of the samples in quarantine in `directory`, and take up what is in it already."""
    journal = training.journal = Journal(directory, training.tracker.warn, training.world)
    for stream in training.streams.values():
        for split in (stream.train, stream.val, stream.test):
            if split is not None and split.quarantine is not None:
                journal.follow(split.quarantine)


def make_average(model: Model, config: TrainConfig) -> Average | None:
    """The average of the weights that the config asks for."""
    if config.ema is not None:
        return Ema(model, config.ema)
    return None if config.swa is None else Swa(model, config.swa, config.epochs)


def loader_settings(config: TrainConfig, device: torch.device) -> LoaderSettings:
    """`auto` workers: none on a CPU, where they would only compete with the training, up to 8 with a GPU."""
    automatic = 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
    workers = automatic if config.workers == "auto" else config.workers
    return LoaderSettings(workers, device.type == "cuda", config.worker_timeout)


def announce(
    plan: Plan,
    precision: Precision,
    streams: Mapping[str, Any],
    coverage: Coverage | None,
    console: Console,
    *,
    resume: bool,
) -> None:
    """What is about to be trained, on what, from which weights."""
    if plan.strategy is not None:
        console.print(f"strategy {plan.strategy}")
    for name, task in plan.tasks.items():
        losses = " + ".join(loss.component.name for loss, _ in task.losses)
        parts = f"head {task.head.component.name}, loss {losses}"
        console.print(f"task {name} ({task.task.component.name}): {parts}")
    for stream in streams.values():
        test = "" if stream.test is None else f", {len(stream.test):,} test"
        part = plan.streams[stream.name]
        console.print(f"data {part.component.name}: {len(stream.train):,} train, {len(stream.val):,} val{test}")
        splits = [split for split in (stream.train, stream.val, stream.test) if split is not None]
        for note in dict.fromkeys(note for split in splits for note in split.data.notes):
            console.print(f"[yellow]note:[/yellow] {escape(note)}", markup=True, soft_wrap=True)
    console.print(f"backbone {plan.backbone.component.name} on {precision.device} in {precision.name}")
    if coverage is not None:
        console.print("\n".join(coverage.describe()), soft_wrap=True, markup=False)
    elif not resume:
        console.print("weights: none, a start from random weights")


def write_resolved(plan: Plan, directory: Path, *, until: int | None = None) -> None:
    """``resolved.yaml``: every value of the run, and what it ran with.

    `until`: it takes the place of another, which is kept as ``resolved-until-step-XXXXXXXX.yaml``.
    """
    plugins = {f"{record.name} ({record.distribution})": record.version for record in plan.host.plugins}
    provenance = {
        "ftengine": version("ftengine"),
        "torch": version("torch"),
        "plugins": plugins,
        "git": git_revision(),
        "strategy": plan.strategy,
    }
    text = yaml.safe_dump({**plan.resolved(), "provenance": provenance}, sort_keys=False, allow_unicode=True)
    final = directory / "resolved.yaml"
    if until is not None:
        publish(final.with_name(f"resolved-until-step-{until:08d}.yaml"), [final.read_bytes()])
        publish(final, [text.encode()])
        return
    if final.exists():
        raise FileExistsError(errno.EEXIST, "belongs to another run", str(final))
    publish(final, [text.encode()])


def git_revision() -> str | None:
    """The revision of the current folder, with ``+changes`` where files differ from it; None outside git."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
