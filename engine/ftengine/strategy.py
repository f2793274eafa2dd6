"""A strategy's settings, filled into a config where it is silent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ftengine.document import Document, KeyPath, Origin
from ftengine.errors import FtengineError, Problem
from ftengine.host import Host
from ftengine.plugin import StrategySpec

NAMED = ("freeze", "adapter", "optimizer", "schedule")
"""Sections that name a component, alone or beside its options."""


def apply_strategy(document: Document) -> list[Problem]:
    """Fill in what the strategy that `document` names sets; returns what is wrong with that.

    This comes before the document is parsed: ``adapter: {rank: 4}`` is whole only with the strategy's name for it.
    """
    name = document.data.get("strategy")
    if not isinstance(name, str):
        return []
    disabled = document.at(("plugins", "disable"))
    host = Host.discover(disable=[item for item in disabled if isinstance(item, str)] if disabled else ())
    problems: list[Problem] = []

    def report(path: KeyPath, message: str) -> None:
        problems.append(document.problem(path, message))

    try:
        component = host.find("strategy", name)
    except FtengineError as error:
        report(("strategy",), str(error))
        return problems
    assert isinstance(component.spec, StrategySpec)
    fill_in(document, component.name, component.spec, report)
    return problems


def fill_in(document: Document, name: str, spec: StrategySpec, report: Callable[[KeyPath, str], None]) -> None:
    """Write what the strategy `name` sets into `document`, but for what is there already.

    A component that the file names otherwise is reported: it would not be this strategy any more.
    """
    origin = Origin(f"strategy {name}")
    for section, value in spec.settings.items():
        if section == "regularizers":
            _add_regularizers(document, value, origin)
        else:
            given = {"name": value} if section in NAMED and isinstance(value, str) else value
            _fill(document, (section,), given, origin, name, report)


def _fill(
    document: Document,
    path: KeyPath,
    settings: Mapping[str, Any],
    origin: Origin,
    name: str,
    report: Callable[[KeyPath, str], None],
) -> None:
    present = document.at(path)
    if isinstance(present, str) and path[0] in NAMED:
        present = {"name": present}
    above = document.at(path[:-1])
    if present is None and isinstance(above, dict) and path[-1] in above:
        report(path, f"the strategy {name!r} sets this, but the file says null: leave one of them out")
        return
    present = present if isinstance(present, dict) else {}
    for key, value in settings.items():
        if key not in present:
            document.put((*path, key), value, origin)
        elif present[key] is None:
            report((*path, key), f"the strategy {name!r} sets this, but the file says null: leave one of them out")
        elif isinstance(value, Mapping) and isinstance(present[key], dict):
            _fill(document, (*path, key), value, origin, name, report)
        elif key == "name" and present[key] != value:
            message = f"the strategy {name!r} sets {value!r}, but this says {present[key]!r}: leave one of them out"
            report(path, message)


def _add_regularizers(document: Document, value: Any, origin: Origin) -> None:
    """Those of the strategy that the file does not name; one that it names keeps the file's options."""
    present = document.data.get("regularizers") or []
    items = [*present] if isinstance(present, list) else [present]
    names = {item.get("name") if isinstance(item, dict) else item for item in items}
    own = [value] if isinstance(value, str | Mapping) else list(value)
    new = [item for item in own if (item if isinstance(item, str) else item["name"]) not in names]
    if new:
        document.put(("regularizers",), items + new, origin)
