"""The cost of the loop beside a hand-written one with the same loader work, and the gain of ``precision: auto``.

Three loops take turns over whole epochs of CIFAR-10 at 64 px with ResNet-18: the hand-written one in fp32, the
hand-written one in the precision that `auto` chose, and ftengine with `auto`. Each epoch is as long as the data (or
--images); its time is the median step times the number of steps, which a disturbed machine moves least.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import torch
from common import classification, prepare
from plain import Loop, Setup

from ftengine.data import LoaderSettings, TrainOrder, batches
from ftengine.loop import fit


def engine_epoch(data: Path, batch_size: int, images: int | None, precision: str) -> tuple[list[float], str]:
    """The seconds of each step of one epoch, and the precision that it ran in."""
    run = prepare(classification(data, "test", 1, batch_size, train={"precision": precision}))
    if images is not None:
        run.steps = run.steps_per_epoch = images // batch_size
    stamps = [0.0]
    advance = run.tracker.advance

    def note(step: int, epoch: int) -> None:
        advance(step, epoch)
        stamps.append(time.perf_counter())
        if step == run.steps:
            run.signals.received = 15  # type: ignore[assignment]  # ends the loop before it evaluates and saves

    run.tracker.advance = note  # type: ignore[method-assign]
    run.steps_per_epoch += 1  # no end of an epoch within the steps: evaluation and saving are not measured
    stamps[0] = time.perf_counter()
    run.save = lambda: None  # type: ignore[method-assign]
    fit(run)
    return [after - before for before, after in itertools.pairwise(stamps)], run.precision.name


def plain_epoch(data: Path, batch_size: int, images: int | None, bf16: bool) -> list[float]:
    """The same for the hand-written loop, on the batches that ftengine's loader makes."""
    run = prepare(classification(data, "test", 1, batch_size))
    split = run.streams["data"].train
    steps = (images or len(split)) // batch_size
    loop = Loop(Setup(classes=10, bf16=bf16), 0.01, steps)
    loop.epoch(batches(split, TrainOrder(len(split), batch_size, 0, "data", 0, steps), LoaderSettings()))
    return loop.step_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, help="images an epoch; default: all")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    settings = (arguments.data, arguments.batch_size, arguments.images)
    steps: dict[str, list[float]] = {"plain fp32": [], "plain, same precision": [], "ftengine, auto": []}
    epochs: dict[str, list[float]] = {name: [] for name in steps}
    engine_epoch(arguments.data, arguments.batch_size, arguments.batch_size * 3, "auto")  # warms caches up
    for _ in range(arguments.repeats):
        engine, precision = engine_epoch(*settings, "auto")
        for name, times in (
            ("ftengine, auto", engine),
            ("plain, same precision", plain_epoch(*settings, bf16=precision == "bf16")),
            ("plain fp32", plain_epoch(*settings, bf16=False)),
        ):
            steps[name] += times
            epochs[name].append(sum(times))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, auto is {precision}")
    medians = {name: statistics.median(times) for name, times in steps.items()}
    for name, median in medians.items():
        whole = ", ".join(f"{seconds:.1f}" for seconds in epochs[name])
        print(f"{name:<24} {median * 1000:8.1f} ms a step (median); epochs {whole} s")
    engine_step = medians["ftengine, auto"]
    print(f"overhead of the loop: {100 * (engine_step / medians['plain, same precision'] - 1):+.2f} %")
    print(f"auto beside plain fp32: {medians['plain fp32'] / engine_step:.2f} times as fast")


if __name__ == "__main__":
    main()
