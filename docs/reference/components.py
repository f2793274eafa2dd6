"""The table of what the built-in plugins offer."""

from __future__ import annotations

from ftengine.host import KINDS, Component, Host
from ftengine.host_lookup import plural
from ftengine.optimizers import OPTIMIZERS
from ftengine.plugin import TaskSpec
from ftengine.schedule import SCHEDULES
from reference.markdown import table as markdown_table


def table(_: str) -> str:
    """A row for each kind (and task): the names of its built-in components."""
    host = Host.discover()
    plugins = {record.name for record in host.plugins if record.builtin}
    builtin = [component for component in host.components if component.plugin in plugins]
    tasks = [component.name for component in builtin if isinstance(component.spec, TaskSpec)]
    rows = []
    for kind in KINDS:
        own = [component for component in builtin if component.kind == kind]
        for task in [None, *tasks]:
            names = _names([component for component in own if component.task == task])
            if names:
                rows.append((plural(kind) + (f" of {task}" if task else ""), names))
    rows.append(("optimizers", ", ".join(f"`{name}`" for name in OPTIMIZERS)))
    rows.append(("schedules", ", ".join(f"`{name}`" for name in SCHEDULES)))
    return markdown_table(("kind", "names"), rows)


def _names(components: list[Component]) -> str:
    return ", ".join(f"`{component.name}`" for component in components)
