"""Finds, checks, isolates and indexes plugins; the only user of pluggy's PluginManager.

Each plugin gets a manager of its own, so that a hook call reaches that plugin alone and one that fails takes no
other with it. Nothing here imports torch, and no factory is imported before :func:`load_factory` is asked to.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import pluggy

from ftengine.errors import FtengineError, name_list, nearest, unknown
from ftengine.host_checks import (
    HOOK_ARGUMENTS,
    api_problem,
    hook_problems,
    sibling_modules,
    stated_api,
    unmarked_hooks,
    where,
)
from ftengine.host_discovery import Claim, PluginRecord, read_claims, settle
from ftengine.host_lookup import LookupProblem, look_up, status_text
from ftengine.host_specs import KINDS, TASK_KINDS, Component, full_components, spec_problems
from ftengine.plugin import SPEC_HOOKS, Hooks, Spec
from ftengine.signals import Interrupted

__all__ = ["KINDS", "TASK_KINDS", "Component", "Host", "LookupProblem", "PluginRecord", "load_factory"]

DISABLE_VARIABLE = "FTENGINE_DISABLE_PLUGINS"


class Host:
    """The installed plugins and the components of those that are ok."""

    def __init__(
        self,
        plugins: Iterable[PluginRecord],
        components: Iterable[Component],
        managers: dict[str, pluggy.PluginManager] | None = None,
    ) -> None:
        self.plugins = tuple(plugins)
        self.components = tuple(components)
        self._managers = dict(managers or {})

    @classmethod
    def discover(cls, disable: Iterable[str] = ()) -> Host:
        """Import every plugin that an installed distribution names in the entry-point group ``ftengine``.

        Those named in `disable`, or in the environment variable FTENGINE_DISABLE_PLUGINS (separated by commas),
        are not imported. Never raises because of a plugin: what went wrong is in its record.
        """
        disabled = dict.fromkeys(disable, "disabled by the config (plugins.disable)")
        for name in os.environ.get(DISABLE_VARIABLE, "").split(","):
            disabled.setdefault(name.strip(), f"disabled by the environment variable {DISABLE_VARIABLE}")

        claims, records = read_claims()
        managers: dict[str, pluggy.PluginManager] = {}
        specs: list[tuple[Claim, list[Spec]]] = []
        for claim, refusal, notes in settle(claims):
            if claim.name in disabled:
                records.append(claim.record("disabled", disabled[claim.name]))
            elif refusal is not None:
                records.append(claim.record("conflict", refusal))
            else:
                record, manager, found = _load(claim, notes)
                records.append(record)
                if manager is not None:
                    managers[claim.name] = manager
                    specs.append((claim, found))
        components = full_components((claim.name, claim.builtin, found) for claim, found in specs)
        return cls(_with_task_notes(records, components), components, managers)

    def names(self, kind: str, task: str | None = None) -> list[str]:
        """The full names of the components of `kind`, sorted; of one task, for the kinds that belong to one."""
        return sorted({component.name for component in self.select(kind, task)})

    def select(self, kind: str, task: str | None = None) -> list[Component]:
        """The components of `kind`; of one task, for the kinds that belong to one. ValueError for no such kind."""
        if kind not in KINDS:
            raise ValueError(unknown("kind of component", kind, KINDS))
        within = task if kind in TASK_KINDS else None
        return [item for item in self.components if item.kind == kind and (within is None or item.task == within)]

    def find(self, kind: str, name: str, task: str | None = None) -> Component:
        """The component that a config means by `name`. LookupProblem, with the reason, where there is none."""
        return look_up(self.plugins, self.components, kind, name, task if kind in TASK_KINDS else None)

    def require(self, names: Iterable[str]) -> list[str]:
        """A message for each of the plugins `names` that is absent or cannot be used."""
        problems = []
        for name in names:
            records = [record for record in self.plugins if record.name == name]
            if not records:
                problems.append(f"{unknown('plugin', name, {record.name for record in self.plugins})} (not installed)")
            elif not any(record.status == "ok" for record in records):
                problems.append(status_text(records[0]))
        return problems

    def observed_by(self, name: str) -> Host:
        """The same plugins and components, where observers of the plugin `name` alone are told of a run."""
        own = {name: self._managers[name]} if name in self._managers else {}
        return Host(self.plugins, self.components, own)

    def notify(self, hook: str, **arguments: Any) -> list[tuple[str, Exception]]:
        """Call an observer hook on each plugin separately; what each raised, by plugin.

        A plugin that raised is left out of all later calls.
        """
        if hook not in HOOK_ARGUMENTS or hook in SPEC_HOOKS:
            raise ValueError(unknown("observer hook", hook, set(HOOK_ARGUMENTS) - set(SPEC_HOOKS)))
        failures: list[tuple[str, Exception]] = []
        for name, manager in list(self._managers.items()):
            try:
                getattr(manager.hook, hook)(**arguments)
            except SystemExit as error:
                failures.append((name, RuntimeError(f"the hook called sys.exit({error.code!r})")))
            except Exception as error:
                failures.append((name, error))
            else:
                continue
            del self._managers[name]
        return failures


def load_factory(component: Component) -> Callable[..., Any]:
    """Import the callable that a component's spec names. FtengineError with component, module and cause."""
    module_name, _, path = component.spec.factory.partition(":")
    place = f"{component.kind} {component.name!r} (plugin {component.plugin})"
    try:
        target: Any = importlib.import_module(module_name)
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:
        cause = where(error, module_name)
        if isinstance(error, ModuleNotFoundError) and error.name == module_name:
            near = nearest(module_name, sibling_modules(module_name))
            cause += f"; did you mean {near!r}?" if near else ""
        raise FtengineError(f"{place}: importing {module_name} for its factory failed: {cause}") from error
    for part in path.split("."):
        if not hasattr(target, part):
            near = nearest(part, [name for name in vars(target) if not name.startswith("_")])
            hint = f"; did you mean {near!r}?" if near else ""
            raise FtengineError(f"{place}: its factory {component.spec.factory!r} does not exist{hint}")
        target = getattr(target, part)
    if not callable(target):
        raise FtengineError(
            f"{place}: its factory {component.spec.factory!r} is a {type(target).__name__}; expected a callable"
        )
    loaded: Callable[..., Any] = target
    return loaded


# --- loading one plugin ----------------------------------------------------------------------------------------


def _load(claim: Claim, notes: tuple[str, ...]) -> tuple[PluginRecord, pluggy.PluginManager | None, list[Spec]]:
    problem = claim.problem()
    if problem is not None:
        return claim.record("broken", problem, notes), None, []
    had_torch = "torch" in sys.modules
    try:
        # What a plugin prints while it is imported must not end up in the output of a command.
        with contextlib.redirect_stdout(sys.stderr):
            module = importlib.import_module(claim.module)
            if not had_torch and "torch" in sys.modules:
                notes += (
                    f"importing {claim.module} imports torch, which slows down every command; import it in the module "
                    "of the factory instead",
                )
            version = api_problem(stated_api(module))
            if version is not None:
                return claim.record("incompatible" if version[0] else "broken", version[1], notes), None, []
            manager = pluggy.PluginManager("ftengine")
            manager.register(module, claim.name)
            specs, problems = _register(module, manager)
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:
        # Also SystemExit, and whatever else a module may raise: a broken plugin breaks nothing but itself.
        cause = where(error, claim.module)
        version = None if claim.module in sys.modules else api_problem(stated_api(claim.module))
        if version is not None and version[0]:
            return claim.record("incompatible", f"{version[1]} ({cause})", notes), None, []
        return claim.record("broken", cause, notes), None, []
    if problems:
        return claim.record("broken", "; ".join(problems), notes), None, []
    return claim.record("ok", None, notes), manager, specs


def _register(module: Any, manager: pluggy.PluginManager) -> tuple[list[Spec], list[str]]:
    """The specs of a module that `manager` holds, and all that is wrong with its hooks."""
    problems: list[str] = []
    implemented: list[str] = []
    functions: list[Callable[..., Any]] = []
    # The module was registered before the hooks are declared, so that the texts of these checks come first.
    for caller in manager.get_hookcallers(module) or []:
        for implementation in caller.get_hookimpls():
            functions.append(implementation.function)
            if implementation.optionalhook and caller.name not in HOOK_ARGUMENTS:
                continue
            implemented.append(caller.name)
            wrapper = implementation.wrapper or implementation.hookwrapper
            problems += hook_problems(caller.name, implementation.function, wrapper)
    problems += unmarked_hooks(module, functions)
    if problems:
        return [], problems
    manager.add_hookspecs(Hooks)
    specs: list[Spec] = []
    for hook, kind in SPEC_HOOKS.items():
        results = getattr(manager.hook, hook)()
        # pluggy drops the results that are None.
        if len(results) < implemented.count(hook):
            problems.append(f"{hook!r} returned None; expected an iterable of {kind.__name__}")
        found: list[Any] = []
        for result in results:
            if isinstance(result, Spec):
                problems.append(f"{hook!r} returned one {type(result).__name__}; yield it, or return a list of it")
            elif not isinstance(result, Iterable):
                problems.append(f"{hook!r} returned {result!r}; expected an iterable of {kind.__name__}")
            else:
                found += result
        problems += spec_problems(hook, found)
        specs += found
    return specs, problems


def _with_task_notes(records: list[PluginRecord], components: tuple[Component, ...]) -> list[PluginRecord]:
    """The records, with a note for each task that a plugin's components name and that does not exist."""
    tasks = {component.name for component in components if component.kind == "task"}
    noted = []
    for record in records:
        orphans: dict[str, list[str]] = {}
        for item in components:
            if (
                record.status == "ok"
                and item.plugin == record.name
                and item.task is not None
                and item.task not in tasks
            ):
                orphans.setdefault(item.task, []).append(f"{item.kind} {item.name}")
        notes = tuple(
            f"no installed plugin has the task {task!r}, which these are for: {name_list(items)}"
            for task, items in orphans.items()
        )
        noted.append(PluginRecord(**{**vars(record), "notes": record.notes + notes}))
    return noted
