"""``ftengine plugins check``: the conformance kit with a report for a person."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ftengine.testing.checks import Result
    from ftengine.testing.subject import Subject


@click.command("check")
@click.argument("name")
@click.option("--check", "only", metavar="CHECK", help="Only this check.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="A YAML file that is laid over the small run in which each component is checked.",
)
def check_plugin(name: str, only: str | None, config: Path | None) -> None:
    """Check the components of the plugin NAME, or the one component NAME, against the contracts.

    Of several components of one name "KIND NAME" or "KIND NAME of TASK" is the one.
    Each check is explained in docs/conformance.md. Exit code 1 if one fails.
    """
    from rich.console import Console

    from ftengine.document import read
    from ftengine.errors import name_list

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    changes = {} if config is None else read(config).data
    with console.status("loading torch"):
        from ftengine.testing.kit import find_check, run_checks
        from ftengine.testing.subject import subjects
    gc.freeze()  # torch stays: Python need not go through all its objects again and again
    found = subjects(name, changes)
    if not found:
        raise click.UsageError(f"{name} registers no components: there is nothing to check")
    if config is not None:
        _must_suit(found, config)
    if only is not None:
        kinds = find_check(only).kinds
        if not any(subject.kind in kinds for subject in found):
            raise click.UsageError(f"{only} is a check of {name_list(kinds)}, of which {name} has none")
    counts, component = {"ok": 0, "failed": 0, "left out": 0}, ""
    alike: dict[tuple[str, ...], list[Result]] = {}
    for result in run_checks(found, only):
        if result.component != component:
            component = result.component
            console.print(component, style="bold")
        style = {"ok": "green", "failed": "red", "left out": "dim"}[result.status]
        console.print(
            f"  {result.status:<8}  {result.check.name}" + (f": {result.reason}" if result.reason else ""), style=style
        )
        counts[result.status] += 1
        if result.status == "failed":
            alike.setdefault((result.component, result.expected, result.found), []).append(result)
    for same in alike.values():
        console.print(f"\n{same[0].text}")
        if len(same) > 1:
            console.print(f"  the same in {', '.join(result.check.name for result in same[1:])}")
    console.print("\n" + ", ".join(f"{number} {status}" for status, number in counts.items()))
    sys.exit(1 if alike else 0)


def _must_suit(found: list[Subject], config: Path) -> None:
    """Refuse a config with which no component can be run, though they can be without it."""
    from ftengine.errors import ConfigError, FtengineError
    from ftengine.testing.checks import NotApplicable

    fault = None
    for subject in found:
        try:
            _ = subject.plan
        except NotApplicable:
            continue
        except ConfigError as error:
            try:
                _ = replace(subject, changes={}).plan
            except FtengineError:
                return  # it is the component's own
            fault = fault or error
        else:
            return
    if fault is not None:
        raise click.UsageError(f"{config}: {fault}")
