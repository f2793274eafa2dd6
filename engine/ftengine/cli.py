"""The command ``ftengine``. A command's module is imported only when that command is asked for."""

from __future__ import annotations

import importlib
from typing import Any

import click

from ftengine.errors import FtengineError, name_list, nearest
from ftengine.launch import launched

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("ftengine.cli_run:run", "Fine-tune a model as a config says."),
    "evaluate": ("ftengine.cli_run:evaluate", "Measure a run's best checkpoint on one of its splits."),
    "predict": (
        "ftengine.cli_run:predict",
        "Apply a run's best checkpoint to images: files, folders, or glob patterns.",
    ),
    "export": (
        "ftengine.cli_export:export",
        "Write a run's model to one .safetensors file, its adapter merged.",
    ),
    "verify-resume": (
        "ftengine.cli_verify:verify_resume",
        "Prove that a config's runs resume exactly.",
    ),
    "lr-find": (
        "ftengine.cli_lr_find:lr_find",
        "Find a learning rate: raise it batch by batch until the loss diverges.",
    ),
    "compare": (
        "ftengine.cli_compare:compare",
        "Compare fine-tuning strategies on the config's data, and recommend one.",
    ),
    "plugins": ("ftengine.cli_plugins:plugins", "List plugins and their components."),
    "config": ("ftengine.cli_config:config", "Check a config, show what it means, or print its schema."),
}
"""Each command: where it is, and the line that ``ftengine --help`` shows for it."""


IN_PARALLEL = ("run", "plugins", "config")


class _Commands(click.Group):
    """Commands by the table above, and errors as text instead of tracebacks."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = nearest(name, COMMANDS)
            hint = f"did you mean {near!r}?" if near else f"commands: {name_list(COMMANDS)}"
            raise click.UsageError(f"unknown command {name!r}; {hint}", ctx)
        if name not in IN_PARALLEL and launched().size > 1:
            raise click.UsageError(
                f"`ftengine {name}` works in one process, and WORLD_SIZE is {launched().size}; in several processes: "
                f"ftengine {', '.join(IN_PARALLEL)}",
                ctx,
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        # Raised errors pass here on their way out of any command.
        try:
            return super().invoke(ctx)
        except FtengineError as error:
            click.echo(f"{_rank()}Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            if error.filename is None:  # of no file: a closed pipe, which click ends quietly by itself
                raise
            click.echo(f"{_rank()}Error: {error.filename}: {error.strerror}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)


def _rank() -> str:
    """What a message begins with where it is not clear which process it comes from."""
    try:
        return launched().prefix
    except FtengineError:
        return ""


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ftengine", prog_name="ftengine", message="%(prog)s %(version)s")
def main() -> None:
    """Fine-tune pretrained vision models, with every component a plugin."""
