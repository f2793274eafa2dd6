"""``ftengine plugins new``: what it writes works at once, and what it refuses."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from ftengine.document import read
from ftengine.host import KINDS, Host
from ftengine.plugin import API_VERSION
from ftengine.resolve import resolve
from ftengine.scaffold.cutting import cut
from ftengine.scaffold.naming import module_of, nearest_usable, problem
from ftengine.scaffold.package import SECTIONS, package, with_needed

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ("backbone", "loss", "metric")
SETS = {"default": DEFAULT, "all": KINDS, **{kind: (kind,) for kind in KINDS}}
NAMES = {which: f"made-{which}" for which in SETS}
each_set = pytest.mark.parametrize("which", SETS)


def put_on_the_path(folder, site):
    """The written distribution `folder`, as an installer leaves it in the folder `site`."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    shutil.copytree(folder / "src", site, dirs_exist_ok=True)
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    entries = [f"{name} = {module}" for name, module in project["entry-points"]["ftengine"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[ftengine]", *entries]) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every set of kinds as a distribution in a folder of its own, written by the function behind the command."""
    folder = tmp_path_factory.mktemp("scaffolds")
    for which, kinds in SETS.items():
        package(NAMES[which], kinds).write(folder / NAMES[which])
    return folder


@pytest.fixture(scope="module")
def site(folder, tmp_path_factory):
    """All of them put on the path."""
    site = tmp_path_factory.mktemp("site")
    for name in NAMES.values():
        put_on_the_path(folder / name, site)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        yield site
    for module in [module for module in sys.modules if module.startswith("made_")]:
        del sys.modules[module]


@pytest.fixture(scope="module")
def host(site):
    return Host.discover()


# --- what it writes --------------------------------------------------------------------------------------------


def test_a_backbone_a_loss_and_a_metric_are_at_most_120_lines(folder):
    files = [path for path in (folder / "made-default").rglob("*") if path.is_file()]
    lines = [line for path in files for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 120
    assert package("orchid-vision", DEFAULT).lines == len(lines)


def test_the_command_writes_the_files_and_says_what_comes_next(cli, tmp_path):
    result = cli("plugins", "new", "orchid-vision", "--directory", tmp_path)
    assert result.exit_code == 0, result.output
    made = tmp_path / "orchid-vision"
    files = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert files == {
        "pyproject.toml",
        "README.md",
        ".gitignore",
        "example.yaml",
        "src/orchid_vision/__init__.py",
        "src/orchid_vision/plugin.py",
        "src/orchid_vision/models.py",
        "src/orchid_vision/training.py",
        "tests/test_orchid_vision.py",
    }
    first, *listed = result.stdout.splitlines()
    assert first == f"{made}: backbone orchid_vision/tiny, loss orchid_vision/tempered, metric orchid_vision/error_rate"
    assert {line.strip() for line in listed[: len(files)]} == files
    commands = [f"pip install -e {made}", f"ftengine run --config {made}/example.yaml", f"pytest {made}"]
    assert [line.strip() for line in listed[len(files) + 1 :]] == commands
    assert "pip install -e ." in (made / "README.md").read_text()
    assert "ftengine run --config example.yaml" in (made / "README.md").read_text()


@each_set
def test_nothing_of_the_template_is_left_in_the_files(which, folder):
    texts = [path.read_text() for path in (folder / NAMES[which]).rglob("*") if path.is_file()]
    assert not any("my_plugin" in text or "my-plugin" in text for text in texts)
    source = (folder / NAMES[which] / "src" / module_of(NAMES[which]) / "plugin.py").read_text()
    assert f"\nFTENGINE_API = {API_VERSION}\n" in source


@pytest.mark.parametrize("name", ["my_plugin2", "not-my-plugin", "not_my_plugin"])
def test_a_name_that_has_the_template_s_in_it_stays_as_it_is(name):
    project = tomllib.loads(package(name, DEFAULT).files["pyproject.toml"])["project"]
    assert project["name"] == name
    assert project["entry-points"]["ftengine"] == {module_of(name): f"{module_of(name)}.plugin"}


def test_the_files_are_linted_and_formatted(folder):
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    package("a-name-that-is-as-long-as-people-make-them", KINDS).write(folder / "long")
    select = [f"--select={','.join(rules['select'])}", f"--ignore={','.join(rules['ignore'])}"]
    for arguments in (["check", *select], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@each_set
def test_the_plugin_has_one_component_of_each_kind_and_no_note(which, host):
    (record,) = [record for record in host.plugins if record.name == module_of(NAMES[which])]
    assert (record.status, record.cause, record.notes) == ("ok", None, ())
    found = sorted(item.kind for item in host.components if item.plugin == record.name)
    assert found == sorted(with_needed(SETS[which]))


@each_set
def test_the_example_is_valid_and_uses_every_component_by_name(which, folder, host):
    file = folder / NAMES[which] / "example.yaml"
    resolve(read(file))
    sections = {SECTIONS.get(section, section): value for section, value in yaml.safe_load(file.read_text()).items()}
    for item in host.components:
        if item.plugin == module_of(NAMES[which]):
            assert item.name in str(sections[item.kind])


@pytest.mark.parametrize("which", ["default", "all"])
def test_factories_exist_and_options_are_described(which, site):
    from ftengine.testing.kit import find_check, run_check
    from ftengine.testing.subject import subjects

    for subject in subjects(module_of(NAMES[which])):
        names = ["light_import", "options_round_trip"]
        names += ["factory_resolves", "requirements_named"] if subject.kind != "strategy" else []
        results = [run_check(find_check(name), subject) for name in names]
        assert [result.text for result in results if result.status != "ok"] == []


def test_a_task_of_its_own_has_a_head_a_loss_and_a_metric_of_its_own(host):
    own = {item.kind: item for item in host.components if item.plugin == "made_task"}
    assert set(own) == {"task", "head", "loss", "metric"}
    assert {own[kind].task for kind in ("head", "loss", "metric")} == {"made_task/one_vs_rest"}
    default = {item.kind: item for item in host.components if item.plugin == "made_default"}
    assert {default[kind].task for kind in ("loss", "metric")} == {"classification"}


def test_a_small_run_of_all_kinds(folder, site, tmp_path, cli):
    small = ["data.count=40", "train.epochs=2", "train.precision=fp32", "train.workers=0", "image.size=16"]
    changes = [word for change in small for word in ("--set", change)]
    example = folder / "made-all" / "example.yaml"
    result = cli("run", "--config", example, "--output", tmp_path / "run", *changes)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["strategy"] == "made_all/gentle"
    assert 0 <= summary["metrics"]["val"]["error_rate"] <= 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["split"] == "train"]
    assert all("loss/tempered" in line for line in trained)
    # The head trains alone in the first epoch, so that there is no term of the features yet.
    assert {"loss/regularizer/quiet" in line for line in trained if line["epoch"] == 2} == {True}


def test_the_written_tests_find_a_component_that_is_wrong(folder, site):
    from ftengine.testing.kit import find_check, run_check
    from ftengine.testing.subject import subjects

    small = {"backbone": {"name": "made_default/tiny"}, "image": {"size": 16}}
    (metric,) = [subject for subject in subjects("made_default", small) if subject.kind == "metric"]
    training = importlib.import_module("made_default.training")
    right = training.ErrorRate.merge
    try:
        training.ErrorRate.merge = lambda self, other: None
        assert run_check(find_check("metric_merge"), metric).status == "failed"
    finally:
        training.ErrorRate.merge = right


# --- what it refuses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason", "usable"),
    [
        ("3d-nets", "is no identifier", "plugin-3d-nets"),
        ("orchid vision", "is no identifier", "orchid-vision"),
        ("nets/orchid", "is no identifier", "nets-orchid"),
        ("übung", "is no identifier", "ubung"),
        ("", "is no identifier", "my-plugin"),
        ("class", "gives a module 'class', which is a Python keyword", "class-plugin"),
        ("torchvision", "is the name of a built-in plugin (ftengine ", "torchvision-plugin"),
        ("Timm", "is the name of a built-in plugin (ftengine ", "timm-plugin"),
        ("json", "gives a module 'json', which is the standard library's", "json-plugin"),
        ("pyyaml", "is the name of an installed distribution (pyyaml ", "pyyaml-plugin"),
        ("yaml", "gives a module 'yaml', which is already installed (", "yaml-plugin"),
        ("ftengine_freeze", "gives a module 'ftengine_freeze', which is already installed (", "ftengine-freeze-plugin"),
        ("ftengine", "is the name of an installed distribution (ftengine ", "ftengine-plugin"),
        ("n" * 300, "is longer than 80 letters", "n" * 80),
    ],
)
def test_a_name_that_cannot_be_used_gets_the_nearest_that_can(name, reason, usable, cli, tmp_path):
    result = cli("plugins", "new", name, "--directory", tmp_path)
    assert result.exit_code == 2
    assert f"{name!r} {reason}" in result.stderr
    assert result.stderr.rstrip().endswith(f"; a name that can be used: {usable!r}")
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_an_installed_plugin_is_refused(cli, tmp_path, distributions):
    distributions.plugin("orchid_vision", "")
    result = cli("plugins", "new", "orchid-vision", "--directory", tmp_path)
    assert result.exit_code == 2
    assert "'orchid-vision' is the name of an installed plugin (orchid_vision-dist 1.0)" in result.stderr


@pytest.mark.parametrize(
    "make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")], ids=["folder", "file", "link to nothing"]
)
def test_what_is_there_is_refused_and_left_alone(make, cli, tmp_path):
    make(tmp_path / "orchid-vision")
    result = cli("plugins", "new", "orchid-vision", "--directory", tmp_path)
    assert result.exit_code == 2
    assert f"'orchid-vision' is there already: {tmp_path / 'orchid-vision'}" in result.stderr
    assert "'orchid-vision-plugin'" in result.stderr
    assert len(list(tmp_path.rglob("*"))) == 1


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ("backbone,los", "unknown kind 'los'; did you mean 'loss'?"),
        ("metrics", "unknown kind 'metrics'; did you mean 'metric'?"),
        ("", "unknown kind ''; known: adapter, backbone, "),
    ],
)
def test_an_unknown_kind_gets_the_nearest(kinds, message, cli, tmp_path):
    result = cli("plugins", "new", "orchid", "--kind", kinds, "--directory", tmp_path)
    assert result.exit_code == 2
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_kinds_may_be_given_one_by_one(cli, tmp_path):
    result = cli("plugins", "new", "orchid", "--kind", "loss", "--kind", "metric,freeze", "--directory", tmp_path)
    assert result.stdout.splitlines()[0].endswith(
        "orchid: loss orchid/tempered, metric orchid/error_rate, freeze orchid/head_first"
    )


def test_a_folder_that_cannot_be_written_is_named(cli, tmp_path):
    (tmp_path / "file").touch()
    result = cli("plugins", "new", "orchid", "--directory", tmp_path / "file" / "below")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path / 'file'}")


def test_a_failure_halfway_leaves_nothing(tmp_path, monkeypatch):
    written = Path.write_text

    def fail(path, *arguments, **options):
        if path.name == "plugin.py":
            raise OSError(28, "No space left on device", str(path))
        return written(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space left"):
        package("orchid", DEFAULT).write(tmp_path / "orchid")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_that_module_in_the_current_one_is_no_module(tmp_path, monkeypatch):
    (tmp_path / "orchid_vision").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert problem("orchid-vision", tmp_path) is None
    (tmp_path / "orchid_vision" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert "already installed" in problem("orchid-vision", tmp_path)
    assert nearest_usable("orchid-vision", tmp_path) == "orchid-vision-plugin"


# --- cutting ---------------------------------------------------------------------------------------------------

SOURCE = '''\
"""A module."""

import os
from typing import Any, Iterator

import numpy as np
from torch import nn

LIMIT = 3


# Stands above `first`.
def first():
    return np.zeros(LIMIT)  # stays


class Second(nn.Module):
    helper: Any = os.sep


@staticmethod
def third():
    return first()
'''


def test_what_is_cut_has_what_it_needs_and_no_more():
    assert cut(SOURCE, ["third"]) == (
        '"""A module."""\n\nimport numpy as np\n\nLIMIT = 3\n\n\n# Stands above `first`.\ndef first():\n'
        "    return np.zeros(LIMIT)  # stays\n\n\n@staticmethod\ndef third():\n    return first()\n"
    )
    assert cut(SOURCE, ["Second"]) == (
        '"""A module."""\n\nimport os\nfrom typing import Any\n\nfrom torch import nn\n\n\n'
        "class Second(nn.Module):\n    helper: Any = os.sep\n"
    )
    assert cut(SOURCE, ["no_such"]) is None


# --- slow: as an author does it --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("which", ["default", "all"])
def test_the_files_are_typed(which, folder):
    made = folder / NAMES[which]
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", folder / "cache", "src", "tests"]
    environment = {**os.environ, "MYPYPATH": f"{ROOT / 'engine'}:{made / 'src'}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=made, env=environment)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("which", ["default", "all"])
def test_the_written_tests_pass(which, folder, tmp_path):
    """In an environment of its own: installed as the README says, with the libraries of this one, and no network."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    (site,) = (environment / "lib").glob("python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in here))
    made = folder / NAMES[which]
    install = ["uv", "pip", "install", "--offline", "--no-deps", "--no-build-isolation", "--python", python, "-e", made]
    subprocess.run(install, check=True)
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", made],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=clean,
    )
    assert done.returncode == 0, done.stdout
