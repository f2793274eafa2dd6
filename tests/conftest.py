"""Fixtures for all tests: the command line, whole runs, image files, third-party packages."""

import os

# Before torch is imported anywhere: the tests run in parallel processes, each on one thread.
os.environ["OMP_NUM_THREADS"] = "1"
# They start hundreds, each of which would compile torch's modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import collections
import gc
import importlib
import itertools
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from run_configs import BASE, merged

THIRD_PARTY = Path(__file__).parent / "thirdparty"


FORKING = {"test_dist.py", "test_ranks.py", "test_saves.py", "test_stopped_runs.py"}
"""Files of tests that fork. They come first: where torch's FakeTensorMode is entered before the first backward pass of
a process, on a machine without a GPU, that pass starts threads for GPUs that are not there, and then no forked process
can go backward. timm's backbones are built with that mode, and see to it; others that use it may not."""


def pytest_collection_modifyitems(items):
    """Then the files with most tests, so that the parallel processes end at about the same time."""
    sizes = collections.Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.name not in FORKING, -sizes[item.path], str(item.path)))


@pytest.fixture(scope="module", autouse=True)
def few_objects():
    """Python's collector leaves out what earlier files made: it would go through all that torch has imported, often."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()


@pytest.fixture(scope="session")
def cli():
    """Runs the command line in this process; anything but a clean exit (a traceback for a user) fails the test."""
    from ftengine.cli import main

    def run(*arguments):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="ftengine")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def cli_process():
    """Runs the command line in a process of its own; `path`: folders to put on its PYTHONPATH."""

    def run(*arguments, path=(), **options):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
        command = [sys.executable, "-m", "ftengine", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, **options)

    return run


class Run:
    """A run directory, and what the command printed."""

    def __init__(self, directory, result):
        self.directory = directory
        self.result = result

    @property
    def summary(self):
        return json.loads((self.directory / "summary.json").read_text())

    @property
    def resolved(self):
        return yaml.safe_load((self.directory / "resolved.yaml").read_text())

    def lines(self, split=None):
        """The lines of metrics.jsonl, or those of one split."""
        lines = [json.loads(line) for line in (self.directory / "metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if split in (None, line["split"])]

    def checkpoint(self, pointer="last"):
        name = json.loads((self.directory / "checkpoints" / f"{pointer}.json").read_text())["checkpoint"]
        return self.directory / "checkpoints" / name

    def bytes(self, pointer="last"):
        """The saved model, byte for byte."""
        return (self.checkpoint(pointer) / "model.safetensors").read_bytes()

    def tensors(self, pointer="last", file="model"):
        import safetensors.torch

        return safetensors.torch.load_file(self.checkpoint(pointer) / f"{file}.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, cli, third_party):
    """Starts runs: ``runs(changes to the base config)`` is a finished one; ``runs.of`` is one made otherwise."""
    folder = tmp_path_factory.mktemp("runs")
    counter = itertools.count()

    def start(changes=None, *arguments, base=BASE, exit_code=0):
        number = next(counter)
        file = folder / f"config-{number}.yaml"
        file.write_text(yaml.safe_dump(merged(base, changes or {})))
        directory = folder / f"run-{number}"
        result = cli("run", "--config", file, "--output", directory, *arguments)
        assert result.exit_code == exit_code, result.output
        return Run(directory, result)

    start.of = Run
    return start


@pytest.fixture
def config_file(tmp_path):
    """Writes the base config with changes; returns the file."""

    def write(changes=None, base=BASE, name="config.yaml"):
        file = tmp_path / name
        file.write_text(yaml.safe_dump(merged(base, changes or {}), sort_keys=False))
        return file

    return write


@pytest.fixture(scope="session")
def write_image():
    """Writes an image: `colour` with noise from `seed`, of (height, width) `size`; returns its path."""

    def write(path, colour=(128, 128, 128), size=(20, 24), seed=0, **options):
        noise = np.random.default_rng(seed).integers(-30, 31, (*size, 3))
        pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)
        return path

    return write


COLOURS = {"blue": (40, 40, 200), "green": (40, 200, 40), "red": (200, 40, 40)}


@pytest.fixture(scope="session")
def image_folder(write_image):
    """Writes a folder of classes named by their colour, `count` images each; returns it."""

    def write(folder, count=6, classes=tuple(COLOURS)):
        for name in classes:
            for index in range(count):
                write_image(folder / name / f"{index}.png", COLOURS[name], seed=index)
        return folder

    return write


def install(package, site):
    """Put a package of tests/thirdparty into the folder `site` as an installer does: its modules and metadata."""
    project = tomllib.loads((THIRD_PARTY / package / "pyproject.toml").read_text())["project"]
    shutil.copytree(THIRD_PARTY / package / "src", site, dirs_exist_ok=True)
    write_metadata(site, project["name"], project["version"], project["entry-points"]["ftengine"])


def write_metadata(site, name, version, entry_points):
    """The metadata of an installed distribution with these plugins."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{plugin} = {module}" for plugin, module in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[ftengine]", *lines]) + "\n")


@pytest.fixture(scope="session")
def third_party_site(tmp_path_factory):
    """A folder with the packages of tests/thirdparty installed in it."""
    site = tmp_path_factory.mktemp("site")
    install("acme", site)
    install("saboteur", site)
    return site


@pytest.fixture(scope="module")
def third_party(third_party_site):
    """The packages of tests/thirdparty are installed in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(third_party_site))
        importlib.invalidate_caches()
        yield third_party_site


@pytest.fixture
def install_plugin(tmp_path, monkeypatch):
    """Installs a distribution ``<name>-dist`` whose plugin `name` is a module with `source`."""

    modules = []

    def make(name, source):
        site = tmp_path / f"site-{name}"
        write_metadata(site, f"{name}-dist", "1.0", {name: f"{name}_plugin"})
        (site / f"{name}_plugin.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))
        modules.append(f"{name}_plugin")
        importlib.invalidate_caches()

    yield make
    for module in modules:
        sys.modules.pop(module, None)
