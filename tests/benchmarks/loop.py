"""The cost of the loop beside a hand-written one with the same loader work, and the gain of ``precision: auto``.

Three loops take turns, ten steps each, until each has done an epoch of CIFAR-10 at 64 px with ResNet-18: ftengine with
`auto`, the hand-written loop in the precision that `auto` chose, and the hand-written loop in fp32. The ratios are
medians over the turns of the time of one loop by that of the next to it, so that a machine that is slower for a
while is slower for all.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import classification, in_turns, prepare
from plain import Loop, Setup

from ftengine.loading import LoaderSettings, batches
from ftengine.order import TrainOrder

TURN = 10


def plain_turns(data: Path, batch_size: int, steps: int, bf16: bool) -> Callable[[], None]:
    """A function that trains the hand-written loop for one turn, on the batches that ftengine's loader makes."""
    split = prepare(classification(data, "test", 1, batch_size)).streams["data"].train
    loop = Loop(Setup(classes=10, bf16=bf16), 0.01, steps)

    def turn() -> None:
        order = TrainOrder(len(split), batch_size, 0, "data", loop.step, loop.step + TURN)
        loop.epoch(batches(split, order, LoaderSettings()))

    return turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument(
        "--turns", type=int, default=7, help="of ten steps; 7 are an epoch of 10,000 images in batches of 128"
    )
    arguments = parser.parse_args()
    steps = arguments.turns * TURN
    run = prepare(classification(arguments.data, "test", 1, arguments.batch_size))
    precision = run.precision.name
    loops = {
        "ftengine, auto": in_turns(run, TURN),
        "plain, same precision": plain_turns(arguments.data, arguments.batch_size, steps + TURN, precision == "bf16"),
        "plain fp32": plain_turns(arguments.data, arguments.batch_size, steps + TURN, False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(arguments.turns + 1):
        for name, turn in loops.items():
            start = time.perf_counter()
            turn()
            if number:  # the first turn fills caches
                seconds[name].append(time.perf_counter() - start)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, auto is {precision}")
    for name, times in seconds.items():
        print(f"{name:<24} {statistics.median(times) / TURN * 1000:8.1f} ms a step; {sum(times):.1f} s in all")
    ours, same, fp32 = seconds.values()
    overhead = statistics.median(a / b for a, b in zip(ours, same, strict=True)) - 1
    gain = statistics.median(b / a for a, b in zip(ours, fp32, strict=True))
    print(f"overhead of the loop: {100 * overhead:+.2f} %")
    print(f"auto beside plain fp32: {gain:.2f} times as fast")


if __name__ == "__main__":
    main()
