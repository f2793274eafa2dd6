"""Detection and segmentation beside the same stock model in a plain loop: quality after equal schedules, and speed.

Both loops get ftengine's batches and do the same steps with the same optimizer. ``quality`` trains both to the end and
prints the metrics of both on the val split; ``speed`` lets them take turns of a few steps and prints the median ratio
of the times of one turn by that of the next to it, and, on a GPU, each one's peak memory.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import in_turns, prepare
from stock import Plain, PlainDetector, PlainSegmenter, detector, segmenter

from ftengine.loading import LoaderSettings, batches
from ftengine.loop import fit
from ftengine.model import StreamBatch
from ftengine.order import TrainOrder, in_order
from ftengine.training import Training

LR = 5e-4


def config(arguments: argparse.Namespace, seed: int, precision: str) -> dict[str, Any]:
    """The run of ftengine."""
    head: Any = arguments.head
    data: dict[str, Any] = {"format": "masks", "root": str(arguments.data), "train": "train", "val": "val"}
    if arguments.task == "detection":
        data = {"format": "voc", "root": str(arguments.data), "train": "train", "val": "val"}
        head = {"name": head, "preset": "small"}
    else:
        data |= {"classes": CAMVID, "ignore": 11}
    return {
        "task": arguments.task,
        "data": data,
        "image": {"size": arguments.size},
        "backbone": {"name": "resnet18", "weights": str(arguments.weights) if arguments.weights else "none"},
        "head": head,
        "augment": [{"name": "HorizontalFlip", "p": 0.5}],
        "optimizer": {"name": "adamw", "lr": LR, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup_epochs": 0.5},
        "train": {
            "epochs": arguments.epochs,
            "eval_every": arguments.epochs,
            "batch_size": arguments.batch_size,
            "precision": precision,
            "seed": seed,
            "pictures": 0,
        },
    }


CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]


def plain(arguments: argparse.Namespace, run: Training, bf16: bool) -> Plain:
    """The stock model that `run` is measured against."""
    classes = len(next(iter(run.tasks.values())).labels)  # type: ignore[attr-defined]
    schedule, steps, per_epoch = run.plan.schedule, run.steps, run.steps_per_epoch

    def rate(step: int) -> float:
        return LR * schedule.factor(min(step, steps - 1), steps, per_epoch)

    common = (rate, bf16, run.precision.device)
    if arguments.task == "detection":
        longest = run.plan.config.image.max_size
        assert longest is not None
        return PlainDetector(detector(classes, arguments.size, longest, arguments.weights), *common)
    return PlainSegmenter(segmenter(arguments.head, classes, arguments.weights), *common)


def feed(run: Training, first: int, last: int) -> Iterator[StreamBatch]:
    """The training batches of steps `first` to `last`."""
    (stream,) = run.streams.values()
    size, seed = run.plan.config.train.batch, run.plan.config.train.seed
    order = TrainOrder(len(stream.train), size, seed, stream.name, first, last, stream.train.groups)
    return batches(stream.train, order, LoaderSettings())


def quality(arguments: argparse.Namespace) -> None:
    for seed in range(arguments.seeds):
        run = prepare(config(arguments, seed, arguments.precision))
        other = plain(arguments, run, run.precision.name == "bf16")
        (metrics,) = run.metrics.values()
        if arguments.only != "stock":
            fit(run)
            _show(f"ftengine seed {seed}", run.judge.best.values)
        if arguments.only == "ftengine":
            continue
        (stream,) = run.streams.values()
        torch.manual_seed(seed)
        other.train(feed(run, 0, run.steps))
        metrics[0].reset()
        size = run.plan.config.train.batch
        val = batches(stream.val, in_order(len(stream.val), size), LoaderSettings())
        _show(f"stock    seed {seed}", other.evaluate(val, metrics[0]))


def _show(name: str, values: dict[str, float]) -> None:
    print(name, {key: round(value, 4) for key, value in values.items() if "/" not in key}, flush=True)


def speed(arguments: argparse.Namespace) -> None:
    runs = {precision: prepare(config(arguments, 0, precision)) for precision in ("fp32", "auto")}
    auto = runs["auto"].precision.name
    loops: dict[str, Callable[[], None]] = {}
    for precision, run in runs.items():
        bf16 = run.precision.name == "bf16"
        loop = plain(arguments, run, bf16)
        loops[f"stock, {run.precision.name}"] = _stock_turn(loop, run, arguments.turn)
        loops[f"ftengine, {precision}"] = in_turns(run, arguments.turn)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(arguments.turns + 1):
        for name, turn in loops.items():
            start = time.perf_counter()
            turn()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:  # the first turn fills caches
                seconds[name].append(time.perf_counter() - start)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, auto is {auto}")
    images = arguments.turn * arguments.batch_size
    for name, times in seconds.items():
        print(f"{name:<16} {images / statistics.median(times):8.2f} images a second")
    stock32, ours32, stock16, ours16 = seconds.values()
    for name, ours, theirs in (
        ("ftengine beside stock, fp32", ours32, stock32),
        ("ftengine beside stock, as auto", ours16, stock16),
        ("auto beside fp32, ftengine", ours16, ours32),
        ("auto beside stock fp32", ours16, stock32),
    ):
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        print(f"{name}: {ratio:.2f} times as fast")


def _stock_turn(loop: Plain, run: Training, length: int) -> Callable[[], None]:
    def turn() -> None:
        loop.train(feed(run, loop.step, loop.step + length))

    return turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["quality", "speed"])
    parser.add_argument("task", choices=["detection", "segmentation"])
    parser.add_argument("data", type=Path, help="a VOC folder, or one with train and val, each of images and masks")
    parser.add_argument("--weights", type=Path, help="a torchvision resnet18 state dict")
    parser.add_argument("--head", help="default: faster_rcnn, or fcn")
    parser.add_argument("--size", type=int, default=240)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", choices=["ftengine", "stock"], help="quality: of one of the two")
    parser.add_argument("--turn", type=int, default=3, help="steps in a turn")
    parser.add_argument("--turns", type=int, default=9)
    arguments = parser.parse_args()
    arguments.head = arguments.head or {"detection": "faster_rcnn", "segmentation": "fcn"}[arguments.task]
    {"quality": quality, "speed": speed}[arguments.what](arguments)


if __name__ == "__main__":
    main()
