"""How long the commands that only read names take, beside importing torchvision: medians of alternating runs."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "import torchvision": [sys.executable, "-c", "import torchvision"],
    "ftengine --help": [sys.executable, "-m", "ftengine", "--help"],
    "ftengine plugins": [sys.executable, "-m", "ftengine", "plugins"],
}


def seconds(command: list[str]) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    for command in COMMANDS.values():
        seconds(command)  # fills the caches of files and of bytecode
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    reference = statistics.median(times["import torchvision"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:<20} {median:7.3f} s   1/{reference / median:.1f} of importing torchvision")


if __name__ == "__main__":
    main()
