"""How long `ftengine plugins` takes with fifty installed plugins, five of them broken: medians of alternating runs.

What it is measured by is what it cannot do without: importing pydantic, click, rich and pluggy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from many_plugins import install

REFERENCE = "import pydantic, click, rich, pluggy"
PLUGINS = [sys.executable, "-m", "ftengine", "plugins"]


def seconds(command: list[str], site: Path | None = None) -> tuple[float, float]:
    """How long `command` takes with the folder `site` on its path: by the clock, and of a processor."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - start, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--plugins", type=int, default=50, help="How many are installed beside the built-in ones.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        install(site, options.plugins)
        commands: dict[str, tuple[list[str], Path | None]] = {
            "the imports": ([sys.executable, "-c", REFERENCE], None),
            "ftengine plugins": (PLUGINS, None),
            f"with {options.plugins} more": (PLUGINS, site),
        }
        for command, path in commands.values():
            seconds(command, path)  # fills the caches of files and of bytecode
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(options.repeats):
            for name, (command, path) in commands.items():
                times[name].append(seconds(command, path))
    reference = statistics.median(used for _, used in times["the imports"])
    for name, values in times.items():
        clock, used = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{name:<20} {clock:7.3f} s, {used:6.3f} s of a processor: {used / reference:5.2f} of the imports")


if __name__ == "__main__":
    main()
