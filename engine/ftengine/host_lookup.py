"""From the name in a config to a component, or to a sentence that says why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution

from ftengine.errors import FtengineError, name_list, nearest, unknown
from ftengine.host_discovery import PluginRecord
from ftengine.host_specs import KINDS, Component
from ftengine.plugin import ENTRY_POINT_GROUP

__all__ = ["LookupProblem", "look_up", "plural", "singular", "status_text"]

_PLURALS = {
    "task": "tasks",
    "backbone": "backbones",
    "head": "heads",
    "loss": "losses",
    "metric": "metrics",
    "freeze": "freeze policies",
    "regularizer": "regularizers",
    "adapter": "adapters",
    "strategy": "strategies",
    "dataset": "datasets",
}


class LookupProblem(FtengineError):  # noqa: N818 - the sentence is one of a config's problems
    """A name that a config or a command uses is not that of a usable component."""

    exit_code = 2


def plural(kind: str) -> str:
    """The kind's name for several: ``losses``, ``freeze policies``."""
    return _PLURALS[kind]


def singular(kind: str) -> str:
    """The kind's name for one: ``loss``, ``freeze policy``."""
    return "freeze policy" if kind == "freeze" else kind


def status_text(record: PluginRecord) -> str:
    """Why a plugin that is not ok cannot be used, in one sentence."""
    words = {
        "disabled": "is disabled",
        "broken": "is broken",
        "incompatible": "is incompatible",
        "conflict": "is refused for a conflict",
    }
    source = f"{record.distribution} {record.version}"
    return f"the plugin {record.name!r} ({source}) {words[record.status]}: {record.cause}"


def look_up(
    plugins: Sequence[PluginRecord], components: Sequence[Component], kind: str, name: str, task: str | None
) -> Component:
    """The component of `kind` and `task` (None: of any) with the full name `name`; LookupProblem if there is none."""
    if kind not in KINDS:
        raise ValueError(unknown("kind of component", kind, KINDS))
    of_kind = [item for item in components if item.kind == kind]
    within = [item for item in of_kind if task is None or item.task == task]
    found = [item for item in within if item.name == name]
    if len(found) > 1:
        tasks = name_list(str(item.task) for item in found)
        raise LookupProblem(f"{name!r} is the name of {plural(kind)} of several tasks: {tasks}")
    if not found:
        raise LookupProblem(_absent(plugins, components, of_kind, within, kind, name, task))
    lacking = what_is_missing(found[0])
    if lacking:
        raise LookupProblem(lacking)
    return found[0]


def what_is_missing(component: Component) -> str | None:
    """In one sentence, which distributions that a component requires are not installed, and what installs them."""
    missing = [name for name in component.spec.requires if not _installed(name)]
    if not missing:
        return None
    what = "a package that is" if len(missing) == 1 else "packages that are"
    return (
        f"the {singular(component.kind)} {component.name!r} needs {what} not installed: {', '.join(missing)}; "
        f"install with: pip install {' '.join(missing)}"
    )


def unregistered(plugin: str) -> str | None:
    """In one sentence, that the installed distribution of that name registers no plugin; None if there is none."""
    if not plugin or not _installed(plugin):
        return None
    found = distribution(plugin)
    if found.entry_points.select(group=ENTRY_POINT_GROUP):
        return None
    return (
        f"the distribution {found.name} {found.version} is installed, but registers no plugin: its pyproject.toml "
        f"needs a table [project.entry-points.{ENTRY_POINT_GROUP}], with the name of the plugin and its module"
    )


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _absent(
    plugins: Sequence[PluginRecord],
    components: Sequence[Component],
    of_kind: Sequence[Component],
    within: Sequence[Component],
    kind: str,
    name: str,
    task: str | None,
) -> str:
    noun = singular(kind)
    names = sorted({item.name for item in within})
    elsewhere = sorted({str(item.task) for item in of_kind if item.name == name})
    if elsewhere:
        tasks = " and ".join(map(repr, elsewhere))
        return (
            f"{name!r} is a {noun} of the task {tasks}; here the task is {task!r}, {plural(kind)} of {task!r}: "
            f"{name_list(names)}"
        )
    other = next((item for item in components if item.name == name), None)
    if other is not None:
        return f"{name!r} is a {singular(other.kind)}, not a {noun}; {_hint(name, names, kind)}"
    plugin, slash, bare = name.partition("/")
    if slash:
        records = [record for record in plugins if record.name == plugin]
        if not records:
            installed = {record.name for record in plugins}
            why = unregistered(plugin) or f"{unknown('plugin', plugin, installed)} (not installed)"
            return f"unknown {noun} {name!r}: {why}"
        if all(record.status != "ok" for record in records):
            return f"unknown {noun} {name!r}: {status_text(records[0])}"
        if any(record.builtin and record.status == "ok" for record in records) and bare in names:
            return f"unknown {noun} {name!r}; built-in components are named without their plugin: {bare!r}"
        return f"unknown {noun} {name!r}; {_hint(name, names, kind)}"
    # A bare name is a built-in component's, so that an unusable built-in plugin may be the reason.
    unusable = "".join(f"; {status_text(item)}" for item in plugins if item.builtin and item.status != "ok")
    return f"unknown {noun} {name!r}; {_hint(name, names, kind)}{unusable}"


def _hint(name: str, names: Sequence[str], kind: str) -> str:
    """The nearest of `names`, also by the part after the plugin, or a list of them."""
    bare = name.rpartition("/")[2]
    same = [choice for choice in names if choice.rpartition("/")[2] == bare]
    near = same[0] if same else nearest(name, names)
    return f"did you mean {near!r}?" if near else f"{plural(kind)}: {name_list(names)}"
