"""``ftengine export``. torch is imported after the run directory has been found good."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from ftengine.errors import FtengineError
from ftengine.resolve import resolve
from ftengine.run_config import run_document


@click.command()
@click.argument("directory", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Which checkpoint to write.",
)
@click.option(
    "--names",
    type=click.Choice(["published", "ftengine"]),
    default="published",
    show_default=True,
    help="Names of the backbone's tensors: those of its published files, or the checkpoint's.",
)
def export(
    directory: Path, file: Path, checkpoint: Literal["best", "last"], names: Literal["published", "ftengine"]
) -> None:
    """Write a run's model to one .safetensors file, its adapter merged.

    With published names torchvision or timm load the backbone from it (with strict=False); the heads' tensors are
    called heads.<task>.<name>. The header says what was trained, with the names of the classes. Another run starts
    from it with backbone.weights: FILE.
    """
    if file.suffix != ".safetensors":
        raise click.UsageError(f"{file}: expected a name that ends in .safetensors")
    if file.exists():
        raise FtengineError(f"{file}: exists, and is not written over; give another name, or remove it")
    document = run_document(directory)
    plan = resolve(document, trained=True)
    from ftengine.export import export as write

    done = write(directory, plan, file, checkpoint, names)
    adapter = "" if plan.adapter is None else f", {plan.adapter.component.name} merged"
    which = {"published": "their published names", "ftengine": "ftengine's names"}[names]
    click.echo(
        f"written to {file}: {done.backbone} tensors of the backbone by {which}, {done.heads} of the heads, from "
        f"{done.checkpoint}{adapter}"
    )
