"""What a resume at 90 % of an epoch costs beside one at its first step: nothing is to be replayed.

Two things are measured. A run of ResNet-18 is stopped after its first step and at 90 % of an epoch, and each is loaded
in turns, up to its first batch; the cost is the median over the turns of the difference. And the order alone, of an
epoch of a million samples, with and without batches of like shapes, up to the first batch at 90 % and at the start.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ftengine.document import Document
from ftengine.loading import feed
from ftengine.order import TrainOrder
from ftengine.resolve import resolve
from ftengine.run import assemble, execute
from ftengine.signals import Interrupted, Signals

BATCH = 8
SAMPLES = 1_600


def config() -> dict[str, Any]:
    return {
        "task": "classification",
        "data": {"format": "digits", "limit": SAMPLES, "val_fraction": 0.01},
        "image": {"size": 32},
        "backbone": {"name": "resnet18", "weights": "none"},
        "train": {"epochs": 2, "batch_size": BATCH, "workers": 0},
        "optimizer": {"name": "adamw", "lr": 0.001},
    }


def stopped(directory: Path, step: int) -> None:
    """A run that stops after `step`."""
    quiet = Console(file=io.StringIO())
    with Signals() as signals:
        try:
            execute(resolve(Document(config())), directory, quiet, signals, stop_after=step)
        except Interrupted:
            raise SystemExit("the run was stopped before its first step") from None


def load(directory: Path) -> float:
    """Seconds until the first batch of a resumed run is there."""
    start = time.perf_counter()
    run = assemble(resolve(Document(config())), directory, Console(file=io.StringIO()), Signals(), resume=True)
    next(feed(run, "data"))
    return time.perf_counter() - start


def first_batch(start: int, steps: int, groups: np.ndarray | None) -> float:
    """Seconds until the order of a million samples has its first batch from step `start`."""
    began = time.perf_counter()
    next(iter(TrainOrder(1_000_000, 100, 0, "data", start, steps, groups)))
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    late = round(0.9 * SAMPLES * 0.99 / BATCH)
    with tempfile.TemporaryDirectory() as folder:
        runs = {step: Path(folder) / str(step) for step in (1, late)}
        for step, directory in runs.items():
            stopped(directory, step)
        seconds = [(load(runs[1]), load(runs[late])) for _ in range(turns + 1)][1:]
    early, far = (statistics.median(times) for times in zip(*seconds, strict=True))
    more = statistics.median(b - a for a, b in seconds)
    ratio = statistics.median(b / a for a, b in seconds)
    print(f"loading up to the first batch: {early:.3f} s after step 1, {far:.3f} s after step {late}, 90 % of an epoch")
    print(f"resume at 90 % beside loading: {more:+.3f} s, {ratio:.3f} times as long")
    groups = np.random.default_rng(0).integers(0, 6, 1_000_000)
    for name, own in (("", None), (" of like shapes", groups)):
        times = [(first_batch(0, 10_000, own), first_batch(9_000, 10_000, own)) for _ in range(turns)]
        first, then = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"first of 10,000 batches{name}, of a million samples: {first:.3f} s; that after 9,000: {then:.3f} s")


if __name__ == "__main__":
    main()
