"""Accuracy after a few epochs in fp32 and in ``precision: auto``, over seeds: CIFAR-10 at 64 px, ResNet-18."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from common import classification, prepare

from ftengine.loop import fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    for precision in ("fp32", "auto"):
        values = []
        for seed in range(arguments.seeds):
            train = {"precision": precision, "seed": seed}
            config = classification(arguments.data, "test", arguments.epochs, 64, lr=0.05, train=train)
            run = prepare(config)
            fit(run)
            values.append(run.judge.best.value)
        name = run.precision.name
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{precision:<5} ({name}) {statistics.mean(values):.4f} ± {spread:.4f}  {[round(v, 4) for v in values]}")


if __name__ == "__main__":
    main()
