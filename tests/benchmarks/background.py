"""What a checkpoint costs the training beside none: written in the background, and written while the training waits.

One run of ResNet-18 at the default size takes turns of some steps each (25 of 32 images: the epoch of a small set): one
without a checkpoint, one that begins with one in the background, and one that begins with one in the foreground. The
costs are medians over the rounds of the time of such a turn by that of the turn without next to it, so that a machine
that is slower for a while is slower for all. What is still being written when a turn ends is waited for in that turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from common import in_turns, prepare

from ftengine.training import Training

KINDS = ("none", "background", "foreground")


def turns(batch_size: int, steps: int, rounds: int) -> tuple[Callable[[str], float], Training]:
    """A function that trains for one turn and returns its seconds, and the run."""
    total = steps * (len(KINDS) * (rounds + 1) + 1)
    run = prepare(
        {
            "task": "classification",
            "data": {"format": "digits", "limit": 640},
            "backbone": {"name": "resnet18", "weights": "none"},
            "optimizer": {"name": "adamw", "lr": 0.001},
            "train": {"epochs": 1, "batch_size": batch_size, "log_every": 10 * total},
        }
    )
    run.tracker.info.directory.mkdir(exist_ok=True)
    save, train = run.save, in_turns(run, steps)

    def turn(kind: str) -> float:
        run.store.background = kind == "background"
        start = time.perf_counter()
        if kind != "none":
            save()
        train()
        run.store.wait()
        return time.perf_counter() - start

    return turn, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=25, help="of a turn: so many steps from checkpoint to checkpoint")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    turn, run = turns(arguments.batch_size, arguments.steps, arguments.rounds)
    for kind in KINDS:  # these fill caches, and the memory of the copies
        turn(kind)
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(arguments.rounds):
        for kind in KINDS[number % len(KINDS) :] + KINDS[: number % len(KINDS)]:
            seconds[kind].append(turn(kind))
    last = run.store.find("last")
    assert last is not None
    size = sum(file.stat().st_size for file in last.iterdir())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, on {run.precision.device}")
    print(f"a checkpoint of {size / 1e6:.0f} MB every {arguments.steps} steps")
    for kind, times in seconds.items():
        step = 1000 * statistics.median(times) / arguments.steps
        print(f"{kind:<12} {step:8.1f} ms a step; {sum(times):.1f} s in all")
    for kind in KINDS[1:]:
        pairs = list(zip(seconds[kind], seconds["none"], strict=True))
        cost = statistics.median(made / without for made, without in pairs) - 1
        each = statistics.median(made - without for made, without in pairs)
        print(f"cost of one in the {kind}: {100 * cost:+.2f} %, {1000 * each:+.0f} ms")


if __name__ == "__main__":
    main()
