"""House prices from a photo of the front, in log space, beside predicting the training mean and median."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from common import prepare

from ftengine.loop import evaluate_split, fit


def config(data: Path, weights: str, seed: int, epochs: int) -> dict[str, Any]:
    return {
        "task": {"name": "regression", "transform": "log"},
        "data": {"format": "csv", "root": str(data), "train": "train.csv", "val": "val.csv", "targets": ["price_usd"]},
        "image": {"size": 96},
        "backbone": {"name": "resnet18", "weights": weights},
        "head": {"name": "linear", "dropout": 0.2},
        "loss": "huber",
        "metrics": ["mae", "rmse", "r2", "mape"],
        "augment": ["HorizontalFlip"],
        "optimizer": {"name": "adamw", "lr": 3e-4, "weight_decay": 0.05},
        "train": {"epochs": epochs, "batch_size": 32, "seed": seed, "eval_every": epochs},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", default="none")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {}
    for seed in range(arguments.seeds):
        run = prepare(config(arguments.data, arguments.weights, seed, arguments.epochs))
        fit(run)
        for name, value in evaluate_split(run, "val").values.items():
            found.setdefault(name, []).append(value)
    stream = run.streams["data"]
    train, val = (
        np.array([float(split.data.target(i)["values"][0]) for i in range(len(split))])
        for split in (stream.train, stream.val)
    )
    print(f"mean predictor:            MAE {np.abs(val - train.mean()).mean():,.0f}")
    print(f"median predictor:          MAE {np.abs(val - np.median(train)).mean():,.0f}")
    print(f"mean predictor, log space: MAE {np.abs(val - np.exp(np.log(train).mean())).mean():,.0f}")
    for name, values in found.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"ftengine {name}: {statistics.mean(values):,.3f} ± {spread:,.3f}")


if __name__ == "__main__":
    main()
