"""``ftengine plugins``: what is installed, and what each component can be told. Imports neither torch nor factories."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from ftengine.cli_new import new_plugin
from ftengine.cli_options import option_rows
from ftengine.cli_tables import Printer, printer
from ftengine.errors import unknown
from ftengine.host import KINDS, Component, Host, LookupProblem
from ftengine.host_lookup import plural, singular, status_text
from ftengine.plugin import API_VERSION
from ftengine.testing.cli_check import check_plugin

__all__ = ["plugins"]

_KIND = click.option("--kind", type=click.Choice(KINDS), help="Only components of this kind.")
_TASK = click.option("--task", metavar="NAME", help="Only this task and the components that belong to it.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, with keys that stay the same.")


@click.group(invoke_without_command=True)
@_KIND
@_TASK
@_JSON
@click.pass_context
def plugins(ctx: click.Context, kind: str | None, task: str | None, as_json: bool) -> None:
    """List plugins and their components.

    A broken plugin is listed with its cause; it matters only to a config that names it.

    \b
    --json prints an object with
      api         the plugin interface's [major, minor]
      plugins     name, distribution, version, status, cause, builtin, module, notes
      components  name, kind, task, plugin, summary, requires
    """
    if ctx.invoked_subcommand is not None:
        if kind or task or as_json:
            raise click.UsageError("--kind, --task and --json go after 'show'", ctx)
        return
    host = Host.discover()
    chosen = _select(host, kind, task)
    if as_json:
        records = [{**vars(record), "notes": list(record.notes)} for record in host.plugins]
        _print_json({"api": list(API_VERSION), "plugins": records, "components": [_summary(item) for item in chosen]})
        return
    output = printer()
    _print_plugins(output, host)
    _print_components(output, chosen)


@plugins.command()
@click.argument("name")
@_KIND
@_TASK
@_JSON
def show(name: str, kind: str | None, task: str | None, as_json: bool) -> None:
    """Show the options of the component NAME, with types, defaults and descriptions.

    \b
    --json prints a list with an object for each component of that name:
      name, kind, task, plugin, summary, requires
      factory         module:callable
      options         a list of: name, type, required, default, description
      schema          the options' JSON Schema
      example         options to try it with
      example_config  what else a config must say then
      details         what its kind adds, such as levels, weights or fields
    """
    host = Host.discover()
    chosen = _select(host, kind, task)
    found = [item for item in chosen if item.name == name]
    if not found:
        raise LookupProblem(_not_found(host, chosen, name))
    if as_json:
        _print_json([_description(item) for item in found])
        return
    for item in found:
        _print_component(printer(), item)


plugins.add_command(check_plugin)
plugins.add_command(new_plugin)


def _select(host: Host, kind: str | None, task: str | None) -> list[Component]:
    if task is not None and task not in host.names("task"):
        raise LookupProblem(unknown("task", task, host.names("task")))
    return [
        item
        for item in host.components
        if kind in (None, item.kind) and (task is None or task == (item.name if item.kind == "task" else item.task))
    ]


def _not_found(host: Host, chosen: Sequence[Component], name: str) -> str:
    for record in host.plugins:
        if record.name == name.partition("/")[0] and record.status != "ok":
            return status_text(record)
        if record.name == name:
            own = [item.name for item in chosen if item.plugin == name]
            hint = f", as in {own[0]!r}" if own else ""
            return f"{name!r} is a plugin; 'show' takes the name of a component{hint}"
    same = [item.name for item in chosen if item.name.rpartition("/")[2] == name]
    if same:
        return f"unknown component {name!r}; did you mean {same[0]!r}?"
    return unknown("component", name, {item.name for item in chosen})


# --- data ------------------------------------------------------------------------------------------------------


def _summary(item: Component) -> dict[str, Any]:
    return {
        "name": item.name,
        "kind": item.kind,
        "task": item.task,
        "plugin": item.plugin,
        "summary": item.spec.summary,
        "requires": list(item.spec.requires),
    }


def _description(item: Component) -> dict[str, Any]:
    return {
        **_summary(item),
        "factory": item.spec.factory,
        "options": [vars(row) for row in option_rows(item.spec.options)],
        "schema": item.spec.options.model_json_schema(),
        "example": dict(item.spec.example),
        "example_config": dict(item.spec.example_config),
        "details": _details(item),
    }


def _details(item: Component) -> dict[str, Any]:
    """What the spec's kind adds to what every spec has."""
    common = {"name", "factory", "summary", "options", "requires", "task", "example", "example_config"}
    details = {key: value for key, value in vars(item.spec).items() if key not in common}
    if "targets" in details:
        details["targets"] = {field: vars(defaults) for field, defaults in details["targets"].items()}
    return details


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


# --- text ------------------------------------------------------------------------------------------------------


def _print_plugins(output: Printer, host: Host) -> None:
    colours = {"ok": "green", "disabled": "dim"}
    output.heading(f"Plugins ({len(host.plugins)})")
    output.table(
        ("name", "distribution", "version", "status", "cause"),
        [(one.name, one.distribution, one.version, one.status, one.cause or "") for one in host.plugins],
        [colours.get(one.status, "red") for one in host.plugins],
    )
    for record in host.plugins:
        for note in record.notes:
            output.line(f"note: {record.name}: {note}")


def _print_components(output: Printer, chosen: Iterable[Component]) -> None:
    groups: dict[tuple[int, str], list[Component]] = {}
    for item in chosen:
        groups.setdefault((KINDS.index(item.kind), item.task or ""), []).append(item)
    for (kind, task), items in sorted(groups.items()):
        title = plural(KINDS[kind]).capitalize() + (f" of {task}" if task else "")
        output.line()
        output.heading(f"{title} ({len(items)})")
        rows = [(item.name, item.plugin, item.spec.summary) for item in sorted(items, key=lambda item: item.name)]
        output.table(("name", "plugin", "summary"), rows)
    if not groups:
        output.line("\nNo components.")


def _print_component(output: Printer, item: Component) -> None:
    output.heading(f"{item.name}: {singular(item.kind)}" + (f" of {item.task}" if item.task else ""))
    output.line(item.spec.summary)
    facts = [("plugin", item.plugin), ("factory", item.spec.factory)]
    if item.spec.requires:
        facts.append(("requires", ", ".join(item.spec.requires)))
    facts += [(key.replace("_", " "), _words(value)) for key, value in _details(item).items()]
    for name, given in (("example", item.spec.example), ("example config", item.spec.example_config)):
        if given:
            facts.append((name, json.dumps(dict(given), ensure_ascii=False)))
    output.table(("", ""), facts)
    rows = option_rows(item.spec.options)
    if rows:
        defaults = ["(required)" if row.required else json.dumps(row.default, ensure_ascii=False) for row in rows]
        output.table(
            ("option", "type", "default", "description"),
            [(row.name, row.type, default, row.description) for row, default in zip(rows, defaults, strict=True)],
        )
    else:
        output.line("It has no options.")
    output.line()


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_words(part)}" for key, part in value.items()) or "none"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
