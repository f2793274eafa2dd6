"""Runs of ftengine from plain data, as the benchmarks need them."""

from __future__ import annotations

import atexit
import io
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from ftengine.document import Document
from ftengine.loop import fit
from ftengine.resolve import resolve
from ftengine.run import assemble
from ftengine.signals import Signals
from ftengine.training import Training


def prepare(config: dict[str, Any]) -> Training:
    """Build a run in a folder that goes when the process does; it prints nothing."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return assemble(resolve(Document(config)), folder, Console(file=io.StringIO()), Signals(), resume=False)


def in_turns(run: Training, length: int) -> Callable[[], None]:
    """A function that trains for `length` steps more. No epoch ends and nothing is saved: that is not measured."""
    run.steps, run.steps_per_epoch = 10**6, 10**6 + 1
    advance = run.tracker.advance

    def stop_after_turn(step: int, epoch: int) -> None:
        advance(step, epoch)
        if step % length == 0:
            run.signals.received = signal.SIGTERM

    def no_save(*, planned: bool = True) -> None:
        pass

    run.save, run.tracker.advance = no_save, stop_after_turn  # type: ignore[method-assign]

    def turn() -> None:
        run.signals.received = None
        fit(run)

    return turn


def classification(data: Path, val: str, epochs: int, batch_size: int, **more: Any) -> dict[str, Any]:
    """The config that all classification benchmarks share: ResNet-18 at 64 px, SGD with a cosine schedule."""
    train = {"epochs": epochs, "batch_size": batch_size, "eval_batch_size": 100, **more.pop("train", {})}
    return {
        "task": "classification",
        "data": {"format": "folder", "root": str(data), "train": "train", "val": val},
        "image": {"size": 64},
        "backbone": {"name": "resnet18", "weights": more.pop("weights", "none")},
        "metrics": ["accuracy"],
        "optimizer": {"name": "sgd", "lr": more.pop("lr", 0.01), "weight_decay": 1e-4},
        "schedule": {"name": "cosine"},
        "train": train,
        **more,
    }
