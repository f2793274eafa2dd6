"""How long a strategy's training step and evaluation take: ``python -m ftengine.compare.measure CONFIG FILE``.

``ftengine compare --budget`` starts this in a process of its own for each strategy; it is no command for users.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

from ftengine.batch_size import busiest_epoch
from ftengine.loading import feed
from ftengine.loop import evaluate_split
from ftengine.optim import set_learning_rates
from ftengine.plan import Plan
from ftengine.resolve import load
from ftengine.run import assemble
from ftengine.signals import Signals
from ftengine.step import take_step
from ftengine.training import Training

WARM_UP = 2
"""Steps before the clock starts: libraries choose their algorithms in them."""
SECONDS, STEPS = 3.0, 30
"""The measurement ends after this time, or this many steps."""


def measure(plan: Plan, directory: Path) -> dict[str, float]:
    """Seconds of a ``step`` in the phase in which most trains, an ``evaluation`` of val, and a ``save``.

    ``test`` is the size of the test split relative to val's, ``steps`` how many an epoch has, ``measured`` what the
    measuring took: all that the process took beyond is the start of a run. `directory` takes a checkpoint.
    """
    training = assemble(plan, directory, Console(file=io.StringIO()), Signals(), resume=False)
    training.begin_epoch(busiest_epoch(training))
    set_learning_rates(training.optimizer, 0.0, 0.0, 0.0)  # the weights stay: what they would become is not at issue
    feeds = {name: feed(training, name) for name in training.streams}
    warm_up = min(WARM_UP, training.steps - 1)
    for step in range(warm_up):
        take_step(training, feeds, step)
    steps = 0

    def some_steps() -> None:
        nonlocal steps
        end = time.perf_counter() + SECONDS
        while steps < STEPS and warm_up + steps < training.steps and (steps == 0 or time.perf_counter() < end):
            take_step(training, feeds, warm_up + steps)
            steps += 1

    stepping = _seconds(training, some_steps)
    evaluation = _seconds(training, lambda: evaluate_split(training, "val", pictures=False))
    save = _seconds(training, training.save)
    # What is still being written when a process ends breaks it: it is waited for, as by every run.
    writing = _seconds(training, training.store.wait)
    sizes = {
        which: sum(len(split) for stream in training.streams.values() if (split := getattr(stream, which)) is not None)
        for which in ("val", "test")
    }
    return {
        "step": stepping / steps,
        "evaluation": evaluation,
        "save": save,
        "test": sizes["test"] / sizes["val"],
        "steps": training.steps_per_epoch,
        "measured": stepping + evaluation + save + writing,
    }


def _seconds(training: Training, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if training.precision.device.type == "cuda":
        torch.cuda.synchronize(training.precision.device)  # what was asked for has been done
    return time.perf_counter() - started


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = measure(load(Path(sys.argv[1])), Path(folder))
    Path(sys.argv[2]).write_text(json.dumps(found))
