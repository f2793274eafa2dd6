"""The options that say which config a command is for; the same in every command that reads one."""

from __future__ import annotations

from pathlib import Path

import click

config_option = click.option("--config", type=click.Path(path_type=Path), help="The YAML file that describes the run.")
task_option = click.option(
    "--task", metavar="NAME", help="The task, where the file leaves it out; else it must agree with the file."
)
set_option = click.option(
    "--set", "assignments", multiple=True, metavar="KEY.PATH=VALUE", help="Override a value; repeatable."
)
