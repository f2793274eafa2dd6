"""What a finished run is worth: its best checkpoint measured, ``summary.json``, and a table for a person."""

from __future__ import annotations

import copy
import json
import math
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from ftengine.checkpoint import Checkpoint, best_or_last, load_model
from ftengine.disk import publish
from ftengine.finite import without_nan
from ftengine.loop import evaluate_split
from ftengine.recovery import settle_best
from ftengine.start import distance, load_start
from ftengine.track import show_results
from ftengine.training import Training


def summarise_run(training: Training, directory: Path, console: Console) -> None:
    """Evaluate the best checkpoint on `test` where there is one, write ``summary.json`` and show the results."""

    def find() -> tuple[dict[str, Any], Checkpoint]:
        settle_best(training)
        return training.judge.state(), training.store.load(best_or_last(directory), for_training=False)

    state, checkpoint = training.world.from_main(find)
    training.judge.load_state(state)
    plan, best = training.plan, training.judge.best
    metrics = {"val": best.values}
    load_model(training.judged, checkpoint.model, checkpoint.path)
    if best.step and any(stream.test is not None for stream in training.streams.values()):
        metrics["test"] = evaluate_split(training, "test").values
        training.tracker.log(best.step, best.epoch, "test", metrics["test"])
    if not training.world.main:
        return
    summary = {
        "task": next(iter(plan.tasks.values())).task.component.name if not plan.joint else list(plan.tasks),
        "strategy": plan.strategy,
        "seed": plan.config.train.seed,
        "metrics": {split: without_nan(values) for split, values in metrics.items()},
        "start": without_nan(training.start_values),
        "primary": plan.monitor.name,
        "best_step": best.step,
        "best_epoch": best.epoch,
        "mixed": best.mixed,
        "epochs": training.epoch,
        "seconds": round(time.perf_counter() - training.started, 3),
        "images_per_second": round(training.images / training.seconds, 2) if training.seconds else None,
        "device": str(training.precision.device),
        "precision": training.precision.name,
        "parameters": {"total": sum(p.numel() for p in training.model.parameters()), "trained": training.trained},
        **without_nan({"moved": moved(training, directory)}),
        "processes": training.world.size,
        "peak_memory": {
            "bytes": training.memory.bytes,
            "of": "cuda" if training.precision.device.type == "cuda" else "process",
        },
    }
    publish(directory / "summary.json", [json.dumps(summary, indent=1).encode() + b"\n"])
    if best.step:
        columns = {"at the start": training.start_values, **metrics}
        title = f"best checkpoint, epoch {best.epoch}"
        if best.mixed is not None:
            title += f", {best.mixed:g} of it mixed with {1 - best.mixed:g} of the start"
        show_results(console, columns, title)
        before = training.start_values.get(plan.monitor.name, math.nan)
        if training.judge.gain(before, best.value) > 0:
            training.tracker.warn(f"{plan.monitor.name} was better at the start: {before:.4g}; training has done harm")
    else:
        training.tracker.warn(
            f"no checkpoint is the best: {plan.monitor.name} was never a finite number; "
            "`ftengine evaluate` and `predict` take the last one"
        )
    console.print(f"run directory: {directory}", soft_wrap=True)


def moved(training: Training, directory: Path) -> float:
    """How far the backbone of the best checkpoint is from where it started: ‖w - w0‖ / ‖w0‖, adapters merged."""
    end, begin = (copy.deepcopy(training.judged.backbone) for _ in range(2))
    tensors = load_start(directory, training.start)
    begin.load_state_dict({name: tensors[f"backbone.{name}"] for name in begin.state_dict()})
    if training.adapter is not None:
        training.adapter.merge(end)
        training.adapter.merge(begin)
    return distance(end, begin.state_dict())["backbone"]
