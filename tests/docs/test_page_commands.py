"""Every command that README and the documentation show is run, and prints what is shown; or a mark says why not."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from doc_pages import ALL_PAGES, ROOT, label, text
from page_commands import Command, File, missing, read
from page_settings import SETTINGS, Setting, install, smaller

from ftengine.cli import main

PAGES = {label(page): page for page in [*ALL_PAGES, *sorted((ROOT / "docs" / "examples").glob("*/README.md"))]}
SHOWN = {name: read(text(page)) for name, page in PAGES.items()}
WITH_COMMANDS = [name for name, shown in SHOWN.items() if shown.commands]
PACKAGES = [name for name in WITH_COMMANDS if name.startswith("docs/examples/")]
"""Pages of example packages; that their configs have no mistakes is in test_example_packages.py."""

UV_IS_THERE = "python -m pip install uv && "
LIGHT = (("config", "check"), ("config", "show"), ("config", "schema"), ("plugins", "show"), ("plugins",))
"""Commands that load no torch; with any --help they are run in every test run, the others when slow tests are."""

HOME = "/home/you/ftengine/"
"""Where the reader is, on the pages."""

MARKED = {
    "README.md": 2,
    "docs/distributed.md": 2,
    "docs/quickstart.md": 1,
    "docs/writing-a-plugin.md": 1,
    "docs/examples/ftengine-metric-learning/README.md": 2,
    "docs/examples/ftengine-video/README.md": 2,
}
"""How many marks each page has; one more is a decision."""


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_commands_is_run_or_marked_with_a_reason(name):
    assert SHOWN[name].problems == []


def test_no_mark_is_added_by_the_way():
    assert {name: shown.marks for name, shown in SHOWN.items() if shown.marks} == MARKED


def words(command):
    """The command's words without ``uv run``; None if it is more than one command."""
    if any(mark in command.text for mark in "|>&;\n"):
        return None
    found = shlex.split(command.text)
    return found[2:] if found[:2] == ["uv", "run"] else found


def is_light(command):
    found = words(command)
    if command.not_run or not found or found[0] != "ftengine":
        return False
    plain = [word for word in found[1:] if not word.startswith("-")]
    light = any(tuple(plain[: len(begin)]) == begin for begin in LIGHT[:-1]) or plain == ["plugins"]
    return "--help" in found or (light and "--build" not in found)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The reader's folder: a clone's configs, and nothing else. Packages that pages write are imported from it."""
    shutil.copytree(ROOT / "configs", tmp_path / "page" / "configs")
    monkeypatch.chdir(tmp_path / "page")
    monkeypatch.syspath_prepend(str(tmp_path / "page"))
    for module in acme():
        monkeypatch.delitem(sys.modules, module)
    yield tmp_path / "page"
    for module in acme():
        del sys.modules[module]


def acme():
    """The imported modules of packages of the name that pages and tests both use."""
    return [module for module in sys.modules if module.partition(".")[0] == "acme_vision"]


def write(step, folder):
    step.write(folder)
    if step.name == "pyproject.toml":
        install(step.content, folder)


@pytest.mark.parametrize("name", [name for name in WITH_COMMANDS if any(map(is_light, SHOWN[name].commands))])
def test_light_commands_print_what_is_shown(name, folder):
    for step in SHOWN[name].steps:
        if isinstance(step, File):
            write(step, folder)
        elif is_light(step):
            # The width of help texts in a terminal of 80 columns, as docs/generate.py renders them.
            result = CliRunner().invoke(main, words(step)[1:], prog_name="ftengine", terminal_width=78)
            assert result.exit_code == 0, f"{step.text}\n{result.output}"
            assert missing(step.shown, result.output) is None, step.text


def parse(arguments):
    """Read a command line as `ftengine` would, without doing what it says; raises click.UsageError."""
    command, context, name = main, None, "ftengine"
    while True:
        context = command.make_context(name, arguments, parent=context)
        rest = [*context._protected_args, *context.args]
        if not isinstance(command, click.Group) or not rest:
            return
        name, command, arguments = command.resolve_command(context, rest)


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_every_command_that_is_shown_exists_with_its_options(name):
    """Also where only the slow test below runs it, or none does."""
    for command in SHOWN[name].commands:
        for line in re.split(r"&&|\|", command.text.replace("\\\n", " ")):
            _, found, arguments = line.partition("ftengine ")
            if found and "--help" not in line and re.match(r"(uv run |torchrun .*-m )?ftengine ", line.strip()):
                parse(shlex.split(arguments))


@pytest.mark.parametrize("line", ["plugins shw linear", "rnu --config a.yaml", "run --confg a.yaml", "run a.yaml"])
def test_a_command_that_does_not_exist_is_found(line):
    with pytest.raises(click.UsageError):
        parse(line.split())


def given(command, option):
    """What follows an option in a command, each time."""
    found = shlex.split(command)
    return [found[place + 1] for place, word in enumerate(found) if word == option]


@pytest.mark.parametrize("name", [name for name in WITH_COMMANDS if name not in PACKAGES])
def test_the_configs_of_heavy_commands_have_no_mistakes(name, folder):
    """Before anything trains, as in the slow test below: the files are there, and what makes them smaller fits them."""
    setting = SETTINGS.get(name, Setting())
    for step in SHOWN[name].steps:
        if isinstance(step, File):
            write(step, folder)
        elif step.not_run is None and not any(shown.startswith("Error:") for shown in step.shown):
            line = smaller(setting, step.text)
            made_before = [value for value in given(line, "--set") if not value.startswith("backbone.weights=run:")]
            assert [file for file in given(line, "--retain") if not Path(file).is_file()] == []
            for config in given(line, "--config"):
                settings = [word for value in made_before for word in ("--set", value)]
                result = CliRunner().invoke(main, ["config", "check", config, *settings])
                assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Puts files of the right form where published weights are kept once downloaded; returns torch's home."""
    home = tmp_path_factory.mktemp("torch")
    (home / "hub" / "checkpoints").mkdir(parents=True)

    def have(name):
        import torch
        from torchvision import models

        weights = models.get_weight(name)
        file = home / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
        builder = name.partition("_Weights")[0].lower()
        if not file.exists():
            given = {"weights": None, **({"weights_backbone": None} if "fpn" in builder else {})}
            torch.save(models.get_model(builder, **given).state_dict(), file)

    return home, have


@pytest.fixture
def shell(folder, tmp_path, published):
    """Runs a line of a page as a reader would; `uv run` is the environment of the tests."""
    programs = tmp_path / "programs"
    programs.mkdir()
    uv = programs / "uv"
    uv.write_text('#!/bin/sh\n[ "$1" = run ] || exit 64\nshift\nexec "$@"\n')
    uv.chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(folder),
        "TORCH_HOME": str(published[0]),
        "COLUMNS": "80",
        "CUDA_VISIBLE_DEVICES": "",
    }

    def run(line):
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment, text=True, timeout=1200,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout.replace(f"{folder}/", HOME)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_a_page_can_be_followed_word_for_word(name, folder, shell, published):
    setting = SETTINGS.get(name, Setting())
    for weights in setting.weights:
        published[1](weights)
    for prepare in setting.prepare:
        prepare(folder)
    for step in SHOWN[name].steps:
        if isinstance(step, File):
            write(step, folder)
        elif step.not_run is None:
            line = smaller(setting, step.text.removeprefix(UV_IS_THERE))
            code, printed = shell(line)
            ends = any(re.match(r"Error:|stopped by|FAILED |\d+ ok, [1-9]\d* failed", shown) for shown in step.shown)
            assert (code != 0) == ends, f"{line}\n{printed}"
            lost = missing(step.shown, printed, setting.alike)
            assert lost is None, f"{line}\nshown, but not printed: {lost}\n{printed}"


# --- the reading of pages --------------------------------------------------------------------------------------


def problems(page):
    return read(page).problems


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("```console\nftengine run\n```\n", "does not begin with one: ftengine run"),
        ("```bash\nftengine run\n```\n", "neither run nor marked: ftengine run"),
        ("```text\n$ ftengine run\n```\n", "commands in a block of text: $ ftengine run"),
        ("```text\npip install x\n```\n", "commands in a block of text: pip install x"),
        ("```zsh\nls\n```\n", "no test looks at, 'zsh'"),
        ("see\n\n    some/file.txt\n", "has something else: some/file.txt"),
        (" ```console\n $ ftengine run\n ```\n", "a fence that is indented"),
        ("<!-- not run: -->\n```console\n$ ftengine run\n```\n", "without a reason"),
        ("<!-- not run: slow -->\n```console\n$ ftengine run\n```\n", "without a reason"),
        ("<!-- not run (torchrun): it needs two machines -->\n```console\n$ ftengine run\n```\n", "marks nothing"),
        ("<!-- not run: it needs two machines -->\n", "a mark without a block"),
        ("<!-- not run, it needs two machines -->\n", "not written as one"),
        ("<!-- printed by: ftengine run -->\n```text\nx\n```\n", "no command begins like this: ftengine run"),
    ],
)
def test_a_page_that_does_not_say_what_is_what_is_refused(page, problem):
    assert any(problem in found for found in problems(page)), problems(page)


def test_a_page_is_read_in_order():
    page = (
        "Write `a.yaml`:\n\n```yaml\ntask: x\n```\n\n<!-- not run (b): it needs\n a cluster -->\n```console\n"
        "$ ftengine a \\\n    --c\nprinted\n$ ftengine b\n```\n\nand `a.yaml`, added:\n\n```yaml\nmore: y\n```\n\n"
        "    uv run ftengine c\n\n<!-- printed by: uv run -->\n```text\nthat\n```\n"
    )
    shown = read(page)
    assert shown.problems == []
    assert shown.steps == [
        File("a.yaml", "task: x\n"),
        Command("ftengine a \\\n--c", ["printed"]),
        Command("ftengine b", not_run="it needs\n a cluster"),
        File("a.yaml", "more: y\n", added=True),
        Command("uv run ftengine c", ["that"]),
    ]


def test_what_is_printed_is_compared_by_its_shape():
    printed = "epoch   1/4  loss 1.0705  |  accuracy 0.7  best\n━━━━━━┓\nbest checkpoint, epoch 3\n"
    assert missing(["epoch 2/4  loss 0.1  |  accuracy 0.9", "…", "━━┓"], printed) is None
    assert missing(["epoch 2/4  loss 0.1  |  f1 0.9"], printed) is not None
    assert missing(["━━┓", "epoch 1/4  loss 1  |  accuracy 1"], printed) == "epoch 1/4  loss 1  |  accuracy 1"
    assert missing(["ants,0.87,1.0,4.9e-10"], "bees,0.61,0.2,0.3\n", ("ants", "bees")) is None
    assert missing(["ants,0.87,1.0"], "ants,0.61\n") is not None
    assert missing(["1,438 train, 359 val"], "47 train, 12 val\n") is None
