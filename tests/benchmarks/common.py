"""Runs of ftengine from plain data, as the benchmarks need them."""

from __future__ import annotations

import atexit
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from ftengine.document import Document
from ftengine.resolve import resolve
from ftengine.run import assemble
from ftengine.signals import Signals
from ftengine.training import Training


def prepare(config: dict[str, Any]) -> Training:
    """Build a run in a folder that goes when the process does; it prints nothing."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return assemble(resolve(Document(config)), folder, Console(file=io.StringIO()), Signals(), resume=False)


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
