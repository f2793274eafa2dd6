"""What a plugin module must satisfy before its components count. Each check returns problems as text."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from types import ModuleType
from typing import Any

from ftengine.errors import name_list, nearest
from ftengine.plugin import API_VERSION, SPEC_HOOKS, Hooks

__all__ = ["HOOK_ARGUMENTS", "api_problem", "hook_problems", "sibling_modules", "stated_api", "unmarked_hooks", "where"]

_MISSING = object()

HOOK_ARGUMENTS: dict[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(function).parameters)[1:]
    for name, function in vars(Hooks).items()
    if inspect.isfunction(function)
}
"""Every hook with the names of its arguments."""


# --- the API version -------------------------------------------------------------------------------------------


def api_problem(stated: Any) -> tuple[bool, str] | None:
    """What is wrong with a module's FTENGINE_API: (whether it is well-formed but another version, why), or None."""
    ours = _version(API_VERSION)
    if stated is _MISSING:
        return False, f"the module has no FTENGINE_API; write FTENGINE_API = {API_VERSION}, the version it is made for"
    well_formed = (
        isinstance(stated, tuple)
        and len(stated) == 2
        and all(isinstance(part, int) and not isinstance(part, bool) for part in stated)
    )
    if not well_formed:
        return False, f"FTENGINE_API is {stated!r}; expected two integers (major, minor), as in {API_VERSION}"
    if stated[0] != API_VERSION[0]:
        return True, f"made for plugin API {_version(stated)}; this ftengine has {ours}, and the major versions differ"
    if stated[1] > API_VERSION[1]:
        return True, f"made for plugin API {_version(stated)}; this ftengine has only {ours}: upgrade ftengine"
    return None


def stated_api(module: ModuleType | str) -> Any:
    """The FTENGINE_API of a module; of a module that failed to import (given by name), as its source states it.

    A plugin made for another version often fails on an import from ftengine before it gets to say so.
    """
    if isinstance(module, ModuleType):
        return getattr(module, "FTENGINE_API", _MISSING)
    parts = module.split(".")
    for root in _roots(module):
        base = root.joinpath(*parts[1:]) if root.is_dir() else root.with_suffix("")
        for path in (base.with_name(base.name + ".py"), base / "__init__.py"):
            try:
                tree = ast.parse(path.read_bytes())
            except (OSError, SyntaxError, ValueError):
                continue
            for node in tree.body:
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                if any(isinstance(target, ast.Name) and target.id == "FTENGINE_API" for target in targets):
                    try:
                        return ast.literal_eval(node.value)  # type: ignore[attr-defined]
                    except ValueError:
                        return _MISSING
    return _MISSING


def _version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


# --- hooks -----------------------------------------------------------------------------------------------------


def hook_problems(hook: str, function: Callable[..., Any], wrapper: bool) -> list[str]:
    """What is wrong with one function that is marked as an implementation of `hook`."""
    if hook not in HOOK_ARGUMENTS:
        near = nearest(hook, HOOK_ARGUMENTS)
        hint = f"did you mean {near!r}?" if near else f"hooks: {name_list(HOOK_ARGUMENTS)}"
        return [f"{hook!r} is marked with @hookimpl but is no hook; {hint}"]
    if wrapper:
        return [f"{hook!r} is a hook wrapper; wrappers are not supported, since no plugin may change another's answer"]
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return [f"{hook!r} is async; hooks are plain functions"]
    problems = []
    given = HOOK_ARGUMENTS[hook]
    for name, parameter in inspect.signature(function).parameters.items():
        positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if positional and name in given and parameter.default is parameter.empty:
            continue
        if name in given:
            problems.append(f"{hook!r} must take {name!r} as a plain argument without a default")
            continue
        near = nearest(name, given)
        hint = f"did you mean {near!r}?" if near else f"the hook is {hook}({', '.join(given)})"
        problems.append(f"{hook!r} takes {str(parameter).split(':')[0]!r}, which the hook does not give; {hint}")
    return problems


def unmarked_hooks(module: ModuleType, marked: Collection[Callable[..., Any]]) -> list[str]:
    """Public functions that look like hooks but lack ``@hookimpl``, which would be ignored in silence."""
    problems = []
    for name, function in vars(module).items():
        if name.startswith("_") or not inspect.isfunction(function) or function in marked:
            continue
        if name in HOOK_ARGUMENTS:
            problems.append(f"{name!r} is a hook but is not marked with @hookimpl")
        elif function.__module__ == module.__name__:
            near = difflib.get_close_matches(name, HOOK_ARGUMENTS, n=1, cutoff=0.85)
            if near:
                problems.append(f"{name!r} is no hook and is not marked with @hookimpl; did you mean {near[0]!r}?")
            elif name.startswith("register_"):
                problems.append(
                    f"{name!r} looks like a hook, but there is none of that name (hooks: {name_list(SPEC_HOOKS)}); a "
                    "helper's name should begin with an underscore"
                )
    return problems


# --- where an exception came from ------------------------------------------------------------------------------


def where(error: BaseException, module: str) -> str:
    """``Type: message (file:line)``, with the last place in the plugin's own package, if it got that far."""
    message = " ".join(str(error).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        text = f"{type(error).__name__}: {error.msg}"
        frames = [(Path(error.filename), error.lineno)]
    else:
        frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    roots = _roots(module)
    for path, line in reversed(frames):
        for root in roots:
            if path == root or root in path.parents:
                return f"{text} ({path.relative_to(root.parent)}:{line})"
    return text


def _roots(module: str) -> list[Path]:
    """The folder (or the file) of a module's top-level package. Nothing is imported."""
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(location) for location in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin else []


def sibling_modules(module: str) -> list[str]:
    """The modules beside one in its package, by full name, if that has been imported."""
    package = module.rpartition(".")[0]
    folders = getattr(sys.modules.get(package), "__path__", ())
    return [f"{package}.{found.name}" for found in pkgutil.iter_modules(folders)]
