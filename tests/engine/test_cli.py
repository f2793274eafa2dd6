"""The command group: help without imports, nearest names, errors as text."""

import importlib
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from ftengine import cli
from ftengine.errors import ConfigError, DataError, Problem


@pytest.fixture
def command(monkeypatch):
    """Make `ftengine probe` call a function of the test's choice."""

    def make(function):
        module = type(sys)("ftengine_probe_module")
        module.probe = click.command()(function)
        monkeypatch.setitem(sys.modules, "ftengine_probe_module", module)
        monkeypatch.setitem(cli.COMMANDS, "probe", ("ftengine_probe_module:probe", "A probe."))

    return make


def invoke(*arguments):
    return CliRunner().invoke(cli.main, arguments, prog_name="ftengine")


def raises(error):
    def function():
        raise error

    return function


def test_help_lists_every_command_with_its_line():
    result = invoke("--help")
    assert result.exit_code == 0
    for name, (_, text) in cli.COMMANDS.items():
        assert f"  {name} " in result.stdout
        assert text in " ".join(result.stdout.split())
    assert invoke("-h").stdout == result.stdout


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_the_line_in_the_help_is_the_commands_own(name):
    target, text = cli.COMMANDS[name]
    module, _, attribute = target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.get_short_help_str(limit=200).rstrip(".") == text.rstrip(".")


def test_version():
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("ftengine 0.")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("evalute", "did you mean 'evaluate'?"),
        ("zzz", "commands: compare, config, evaluate, export, lr-find, plugins, predict, run"),
    ],
)
def test_an_unknown_command_gets_the_nearest(name, hint):
    result = invoke(name)
    assert result.exit_code == 2
    assert f"Error: unknown command '{name}'; {hint}" in result.stderr


def test_an_unknown_option_is_a_usage_error():
    result = invoke("--verson")
    assert result.exit_code == 2
    assert "--verson" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (DataError("train.csv has no column 'label'"), 1, "Error: train.csv has no column 'label'\n"),
        (ConfigError([Problem("train.epochs", "must be 1 or more")]), 2, "  train.epochs: must be 1 or more\n"),
        (PermissionError(13, "Permission denied", "/runs/a"), 1, "Error: /runs/a: Permission denied\n"),
    ],
)
def test_errors_are_text_on_standard_error(command, error, code, text):
    command(raises(error))
    result = invoke("probe")
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.endswith(text)
    assert "Traceback" not in result.stderr


def test_an_unforeseen_error_keeps_its_traceback(command):
    command(raises(RuntimeError("a bug")))
    assert isinstance(invoke("probe").exception, RuntimeError)


def test_an_interrupt_ends_with_130_and_one_line(command):
    command(raises(KeyboardInterrupt()))
    result = invoke("probe")
    assert result.exit_code == 130
    assert result.stderr == "Interrupted.\n"


def test_a_result_of_a_command_is_its_exit_code(command):
    command(lambda: click.get_current_context().exit(3))
    assert invoke("probe").exit_code == 3


def test_the_module_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "ftengine", "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == invoke("--help").stdout


@pytest.mark.skipif(os.name != "posix", reason="pipes that close while being written")
@pytest.mark.parametrize("arguments", [["plugins"], ["plugins", "--json"], ["--help"]])
def test_a_closed_pipe_ends_quietly(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ftengine", *arguments]
    process = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (process.returncode, process.stderr) == (1, b"")
