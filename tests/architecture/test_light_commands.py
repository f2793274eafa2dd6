"""Commands that only read names import neither torch nor what brings it along."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "PIL",
    "albumentations",
    "cv2",
    "scipy",
    "sklearn",
    "torchmetrics",
    "peft",
    "matplotlib",
)

PROBE = f"""
import atexit, sys
heavy = {HEAVY!r}
atexit.register(lambda: print("imported:", *(name for name in heavy if name in sys.modules), file=sys.stderr))
from ftengine.cli import main
main(sys.argv[1:], prog_name="ftengine")
"""


def run(*arguments, before=""):
    command = [sys.executable, "-c", before + PROBE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["plugins"],
        ["plugins", "--json"],
        ["plugins", "--help"],
        ["plugins", "show", "resnet18"],
        ["plugins", "show", "linear"],
        ["compare", "--help"],
        ["lr-find", "--help"],
        ["export", "--help"],
    ],
    ids=" ".join,
)
def test_listings_leave_all_heavy_libraries_unimported(arguments):
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout
    assert result.stderr == "imported:\n"


@pytest.mark.parametrize(
    "arguments",
    [["run", "--help"], ["evaluate", "--help"], ["predict", "--help"], ["config", "--help"], ["config", "schema"]],
    ids=" ".join,
)
def test_what_only_reads_configs_leaves_torch_unimported(arguments):
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout
    # The table of augmentations needs numpy.
    assert set(result.stderr.removeprefix("imported:").split()) <= {"numpy"}


def test_the_probe_sees_an_import():
    assert run("--version", before="import numpy\n").stderr == "imported: numpy\n"
