"""``ftengine config``: what is wrong with a file, what it means, and what may stand in one. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ftengine.cli_common import set_option, task_option
from ftengine.document import Document, KeyPath, dotted
from ftengine.host import Host
from ftengine.resolve import load

_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def config() -> None:
    """Check a config, show what it means, or print its schema."""


@config.command()
@_FILE
@task_option
@set_option
@click.option("--build", is_flag=True, help="Also read the data and build the model, as a run would; loads torch.")
def check(file: Path, task: str | None, assignments: tuple[str, ...], build: bool) -> None:
    """Report every mistake in FILE, each with its line; exit code 2 if there is one."""
    plan = load(file, assignments, task)
    if build:
        from ftengine.trial import read_tasks, try_to_build

        try_to_build(plan, read_tasks(plan))
    click.echo(f"{file}: no mistakes found" + (", and everything could be built" if build else ""))


@config.command()
@_FILE
@task_option
@set_option
def show(file: Path, task: str | None, assignments: tuple[str, ...]) -> None:
    """Print every value of FILE's run and where it came from: a line, an option, or a default."""
    plan = load(file, assignments, task)
    rows = [(dotted(path), _text(value), _origin(plan.document, path)) for path, value in leaves(plan.resolved())]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, origin in rows:
        click.echo(f"{name:<{widths[0]}}  {value:<{min(widths[1], 48)}}  {origin}")


@config.command()
def schema() -> None:
    """Print the JSON Schema of config files, made from the plugins that are installed.

    \b
    For an editor with a YAML language server:
      ftengine config schema > ftengine.schema.json
    and as the first line of a config:
      # yaml-language-server: $schema=ftengine.schema.json
    """
    from ftengine.schema import config_schema

    click.echo(json.dumps(config_schema(Host.discover()), indent=1))


def leaves(data: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every value of a resolved config that is not a mapping or a list of mappings, with its path."""
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    elif isinstance(data, list) and any(isinstance(item, dict) for item in data):
        for index, item in enumerate(data):
            yield from leaves(item, (*path, index))
    else:
        yield path, data


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _origin(document: Document, path: KeyPath) -> str:
    """Where a resolved value was written. A bare component name in the file stands for its `name`."""
    if path in document.origins:
        return str(document.origins[path])
    above = path[:-1]
    written = document.at(above)
    if path and path[-1] in ("name", "format", "source") and above in document.origins and isinstance(written, str):
        return str(document.origins[above])
    for length in range(len(path) - 1, 0, -1):  # [224, 224] and the like are written as one value
        if path[:length] in document.origins and isinstance(path[length], int):
            return str(document.origins[path[:length]])
    return "default"
