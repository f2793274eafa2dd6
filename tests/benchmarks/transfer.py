"""Fine-tuning beside a hand-written loop: everything, the head alone, and from random weights, over seeds.

The data are a folder a class under `train` and `val`; images are 64 px, and every run takes the same steps. The
accuracy is that of the last epoch on `val`, so that no choice of the best epoch flatters either side.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from common import classification, prepare
from plain import Loop, Setup

from ftengine.loading import LoaderSettings, batches
from ftengine.loop import evaluate_split, fit
from ftengine.order import TrainOrder, in_order
from ftengine.training import Training
from ftengine.weights import read_tensors

BATCH = 32
CASES = ("full", "freeze all", "random")
LR = 0.01


def engine(data: Path, weights: Path, case: str, seed: int, epochs: int, precision: str) -> tuple[float, Training]:
    more: dict[str, Any] = {"freeze": "all"} if case == "freeze all" else {}
    source = "none" if case == "random" else str(weights)
    train = {"seed": seed, "eval_every": epochs, "precision": precision}
    more["image"] = {"size": 64, "fit": "stretch"}
    run = prepare(classification(data, "val", epochs, BATCH, weights=source, lr=LR, train=train, **more))
    fit(run)
    return evaluate_split(run, "val").values["accuracy"], run


def plain(run: Training, weights: Path, case: str, seed: int, epochs: int) -> float:
    """The hand-written loop on the same batches, in the same precision."""
    stream = run.streams["data"]
    steps = epochs * (len(stream.train) // BATCH)
    tensors = None if case == "random" else read_tensors(weights)
    bf16 = run.precision.name == "bf16"
    classes = len(stream.train.data.names["label"])
    loop = Loop(Setup(classes, bf16, case == "freeze all", tensors, seed), LR, steps)
    loop.epoch(batches(stream.train, TrainOrder(len(stream.train), BATCH, seed, "data", 0, steps), LoaderSettings()))
    return loop.accuracy(lambda: batches(stream.val, in_order(len(stream.val), 100), LoaderSettings()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    print(f"{'':<12}{'ftengine':<36}hand-written loop")
    for case in CASES:
        rows: tuple[list[float], list[float]] = ([], [])
        for seed in range(arguments.seeds):
            value, run = engine(arguments.data, arguments.weights, case, seed, arguments.epochs, arguments.precision)
            rows[0].append(value)
            rows[1].append(plain(run, arguments.weights, case, seed, arguments.epochs))
        print(f"{case:<12}{describe(rows[0]):<36}{describe(rows[1])}", flush=True)


def describe(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {spread:.3f}  ({', '.join(f'{value:.3f}' for value in values)})"


if __name__ == "__main__":
    main()
