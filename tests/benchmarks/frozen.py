"""What a frozen backbone saves: the time of a training step, and the memory that autograd keeps for the way back.

Runs with ``freeze: none`` and ``freeze: all`` (and the stages in between) take turns of ten steps each, on ResNet-18 at
64 px. The ratios are medians over the turns of the time of one by that of the next to it. The bytes are those of the
tensors that autograd saves in one step, each storage once, counted with saved-tensor hooks; on a GPU the allocator's
peak in a step is shown as well.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import classification, prepare
from torch import Tensor

from ftengine.loading import feed
from ftengine.model import StreamBatch
from ftengine.step import take_step
from ftengine.training import Training

TURN = 10
POLICIES: dict[str, Any] = {
    "none": "none",
    "through c3": {"name": "stages", "through": "c3"},
    "through c4": {"name": "stages", "through": "c4"},
    "all": "all",
}


class Bench:
    """A run under one policy, ready to take steps."""

    def __init__(self, data: Path, batch_size: int, precision: str, freeze: Any) -> None:
        train = {"precision": precision}
        self.run: Training = prepare(classification(data, "test", 100, batch_size, freeze=freeze, train=train))
        self.run.begin_epoch(0)
        self.feeds: dict[str, Iterator[StreamBatch]] = {name: feed(self.run, name) for name in self.run.streams}
        self.step = 0

    def take(self, steps: int) -> None:
        for _ in range(steps):
            take_step(self.run, self.feeds, self.step)
            self.step += 1
        self.run.meter.take()  # waits for the device

    def saved_bytes(self) -> int:
        """Of what autograd saves in one step."""
        storages: dict[int, tuple[Tensor, int]] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = (tensor, storage.nbytes())  # held, so that no address is used twice
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self.take(1)
        return sum(size for _, size in storages.values())

    def peak(self) -> int:
        torch.cuda.reset_peak_memory_stats()
        self.take(1)
        return torch.cuda.max_memory_allocated()


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="CIFAR-10, as folders train/<class> and test/<class>")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5, help="of ten steps")
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    benches = {
        name: Bench(arguments.data, arguments.batch_size, arguments.precision, freeze)
        for name, freeze in POLICIES.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in benches}
    for number in range(arguments.turns + 1):
        for name, bench in benches.items():
            elapsed = timed(lambda bench=bench: bench.take(TURN))  # type: ignore[misc]
            if number:  # the first turn fills caches
                seconds[name].append(elapsed)
    precision = next(iter(benches.values())).run.precision
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {precision.device}, {precision.name}")
    saved = {name: bench.saved_bytes() for name, bench in benches.items()}
    for name, bench in benches.items():
        speed = statistics.median(a / b for a, b in zip(seconds["none"], seconds[name], strict=True))
        row = f"freeze {name:<11} {speed:5.2f} times as fast as none; autograd saves {saved[name] / 2**20:8.2f} MiB"
        row += f", {saved[name] / saved['none']:.4f} of none's"
        if precision.device.type == "cuda":
            row += f"; peak {bench.peak() / 2**20:.0f} MiB"
        print(row)


if __name__ == "__main__":
    main()
