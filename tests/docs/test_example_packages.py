"""The packages of docs/examples/: found as they stand there, and built, installed elsewhere and run."""

import importlib
import json
import os
import subprocess
import sys
import tomllib
import venv
from dataclasses import dataclass

import pytest
from doc_pages import ROOT

from ftengine.host import Host


@dataclass(frozen=True)
class Package:
    """`config` is one of its own that needs no files; with `small` laid over it, it trains in a few seconds.

    `terms` are keys of the training's log lines, `metrics` of its summary.
    """

    folder: str
    config: str
    small: tuple[str, ...]
    terms: tuple[str, ...]
    metrics: tuple[str, ...]

    @property
    def root(self):
        return ROOT / "docs" / "examples" / self.folder

    @property
    def project(self):
        return tomllib.loads((self.root / "pyproject.toml").read_text())["project"]

    @property
    def plugin(self):
        (name,) = self.project["entry-points"]["ftengine"]
        return name


PACKAGES = [
    Package(
        "ftengine-metric-learning",
        "digits.yaml",
        ("backbone.name=mobilenet_v3_small", "data.limit=6", "train.batch_size=8", "train.epochs=1", "train.workers=0"),
        ("loss/arcface",),
        ("map_at_r", "recall_at_1", "verification_auc"),
    ),
    Package(
        "ftengine-video",
        "moving_digits.yaml",
        ("data.count=40", "data.frames=2", "train.batch_size=16", "train.epochs=1", "train.workers=0"),
        ("loss/cross_entropy",),
        ("accuracy", "mean_class_accuracy"),
    ),
]
CONFIGS = [
    pytest.param(package, file, id=f"{package.folder}/{file.name}")
    for package in PACKAGES
    for file in sorted((package.root / "configs").glob("*.yaml"))
]


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """Puts a package on this process's path, with the metadata that an installer would write."""
    before = set(sys.modules)

    def put(package):
        project = package.project
        info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (info / "METADATA").write_text(head + "".join(f"Requires-Dist: {one}\n" for one in project["dependencies"]))
        entries = [f"{name} = {module}" for name, module in project["entry-points"]["ftengine"].items()]
        (info / "entry_points.txt").write_text("\n".join(["[ftengine]", *entries]) + "\n")
        monkeypatch.syspath_prepend(str(package.root / "src"))
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    yield put
    for module in set(sys.modules) - before:
        if module.partition(".")[0] in {package.folder.replace("-", "_") for package in PACKAGES}:
            del sys.modules[module]


def test_every_package_is_tried():
    folders = {path.parent.name for path in (ROOT / "docs" / "examples").glob("*/pyproject.toml")}
    assert folders == {package.folder for package in PACKAGES}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.folder)
def test_its_plugin_is_found_without_fault(package, on_path):
    on_path(package)
    (record,) = [record for record in Host.discover().plugins if record.name == package.plugin]
    assert (record.status, record.cause, record.notes) == ("ok", None, ())


@pytest.mark.parametrize(("package", "file"), CONFIGS)
def test_its_configs_have_no_mistakes(package, file, on_path, cli):
    on_path(package)
    result = cli("config", "check", file)
    assert result.exit_code == 0, result.output


def check_run(directory, package):
    summary = json.loads((directory / "summary.json").read_text())
    assert set(package.metrics) <= set(summary["metrics"]["val"])
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["split"] == "train"]
    assert trained
    assert all(line[term] > 0 for line in trained for term in package.terms)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.folder)
def test_it_trains(package, on_path, cli, tmp_path):
    on_path(package)
    changes = [part for change in package.small for part in ("--set", change)]
    result = cli("run", "--config", package.root / "configs" / package.config, "--output", tmp_path / "run", *changes)
    assert result.exit_code == 0, result.output
    check_run(tmp_path / "run", package)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Builds a package's wheel and installs it into an environment of its own; returns that environment's python.

    The environment also sees what the tests' own has, as one with system packages would: nothing is downloaded.
    """

    def install(package):
        folder = tmp_path_factory.mktemp(package.folder)
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, package.root]
        subprocess.run(build, check=True, capture_output=True)
        venv.create(folder / "env", with_pip=False, symlinks=True)
        (site,) = (folder / "env").glob("lib/python*/site-packages")
        ours = os.path.dirname(os.path.dirname(pytest.__file__))
        (site / "system.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        (wheel,) = folder.glob("*.whl")
        python = folder / "env" / "bin" / "python"
        subprocess.run(["uv", "pip", "install", "--offline", "--no-deps", "--python", python, wheel], check=True)
        return python

    return install


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.folder)
def test_built_and_installed_it_trains_and_passes_its_tests(package, installed, tmp_path):
    python = installed(package)
    where = "import importlib.metadata as m; print(*m.distribution({!r}).files)".format(package.project["name"])
    files = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout
    assert "plugin.py" in files
    config = package.root / "configs" / package.config
    changes = [part for change in package.small for part in ("--set", change)]
    command = [python, "-m", "ftengine", "run", "--config", config, "--output", tmp_path / "run", *changes]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    check_run(tmp_path / "run", package)
    tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", package.root, package.root / "tests"]
    done = subprocess.run(tests, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
