"""``ftengine plugins new``: a plugin to begin with."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from ftengine.errors import unknown
from ftengine.host import KINDS

DEFAULT = "backbone,loss,metric"


def _kinds(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> list[str]:
    kinds = [kind.strip() for value in values for kind in value.split(",")]
    for kind in kinds:
        if kind not in KINDS:
            raise click.BadParameter(unknown("kind", kind, KINDS), ctx, parameter)
    return kinds


@click.command("new")
@click.argument("name")
@click.option(
    "--kind",
    "kinds",
    metavar="KIND,…",
    multiple=True,
    default=(DEFAULT,),
    show_default=True,
    callback=_kinds,
    help=f"What it has one of: {', '.join(KINDS)}. A task brings a head, a loss and a metric along.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where its folder is made; default: the current folder.",
)
def new_plugin(name: str, kinds: list[str], directory: Path) -> None:
    """Write a plugin to begin with, in a new folder NAME.

    NAME is the distribution's. The plugin and its module are called as it is, in lower case with underscores: those of
    acme-vision are acme_vision, and a config says acme_vision/tiny. The folder has the components, an example config
    that uses each of them, and tests that pass as they are written.
    """
    from ftengine.scaffold.naming import nearest_usable, problem
    from ftengine.scaffold.package import package

    refusal = problem(name, directory)
    if refusal is not None:
        raise click.UsageError(f"{name!r} {refusal}; a name that can be used: {nearest_usable(name, directory)!r}")
    folder, made = directory / name, package(name, kinds)
    made.write(folder)
    click.echo(f"{folder}: {', '.join(f'{kind} {full}' for kind, full in made.components)}")
    for path in made.files:
        click.echo(f"  {path}")
    click.echo(f"{len(made.files)} files, {made.lines} lines without the blank ones. Next:")
    place = shlex.quote(str(folder))
    for command in (f"pip install -e {place}", f"ftengine run --config {place}/example.yaml", f"pytest {place}"):
        click.echo(f"  {command}")
