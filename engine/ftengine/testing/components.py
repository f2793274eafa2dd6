"""Checks of what every component says of itself: no data and no network are needed."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

from pydantic import ValidationError

from ftengine.errors import name_list
from ftengine.host import PluginRecord, load_factory
from ftengine.testing.checks import Nonconformity, check
from ftengine.testing.subject import Subject

LIBRARY = "ftengine"
"""What this distribution needs, a plugin's may use as well."""

IMPORTS_TORCH = 3
"""The exit code of a process that has found out so."""

FACTORY_KINDS = ("task", "backbone", "head", "loss", "metric", "freeze", "dataset", "regularizer", "adapter")


@check()
def light_import(subject: Subject) -> None:
    """The plugin's module is imported without torch, which every command would wait for."""
    module = _record(subject).module
    code, last = _imported_alone(module, tuple(path for path in sys.path if path))
    if code == IMPORTS_TORCH:
        raise Nonconformity("a plugin module that imports no torch", f"that importing {module} imports torch")
    if code:
        raise Nonconformity(f"that {module} is imported", last)


@check()
def options_round_trip(subject: Subject) -> None:
    """Options are described, come back from JSON as they were, and refuse unknown keys."""
    options = subject.component.spec.options
    bare = [name for name, info in options.model_fields.items() if not info.description]
    if bare:
        raise Nonconformity("a description of every option", f"none of {name_list(bare)}")
    if subject.kind == "strategy":
        return
    given = subject.part.options
    text = given.model_dump_json()
    try:
        again = options.model_validate_json(text)
    except ValidationError as error:
        raise Nonconformity("options that are read from their own JSON", f"{_first(error)} in {text}") from None
    if again != given:
        changed = [name for name in options.model_fields if getattr(again, name) != getattr(given, name)]
        raise Nonconformity("the same options after JSON", f"others for {name_list(changed)}")
    try:
        options.model_validate({**json.loads(text), "no_such_option": 1})
    except ValidationError:
        return
    raise Nonconformity("that an unknown option is refused", "that `no_such_option` is taken")


@check(*FACTORY_KINDS)
def factory_resolves(subject: Subject) -> None:
    """The factory that the spec names exists, can be imported and called."""
    subject.must_be_complete()
    load_factory(subject.component)


@check(*FACTORY_KINDS)
def requirements_named(subject: Subject) -> None:
    """What the factory's module imports is a dependency of the plugin's distribution, or in the spec's `requires`."""
    owner = _record(subject).distribution
    named = {_plain(name) for name in subject.component.spec.requires}
    allowed = {_plain(owner), *named, *_requirements(owner), *_requirements(LIBRARY), LIBRARY}
    providers = _providers()
    module = subject.component.spec.factory.partition(":")[0]
    for package in sorted(_imports(module)):
        if package in sys.stdlib_module_names:
            continue
        owners = {_plain(name) for name in providers.get(package, ())}
        if owners and not owners & allowed:
            raise Nonconformity(
                f"that {package}, which {module} imports, is a dependency of {owner} or in `requires`",
                f"neither; it belongs to {name_list(owners)}",
            )
    subject.must_be_complete()


def _record(subject: Subject) -> PluginRecord:
    return next(record for record in subject.host.plugins if record.name == subject.component.plugin)


@functools.cache
def _imported_alone(module: str, path: tuple[str, ...]) -> tuple[int, str]:
    """How a new process ends that imports `module` and nothing else, and the last line it says."""
    code = f"import sys, {module}; sys.exit({IMPORTS_TORCH} if 'torch' in sys.modules else 0)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


_providers = functools.cache(packages_distributions)


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"


def _plain(name: str) -> str:
    """A distribution's name as all spellings of it are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirements(name: str) -> Iterator[str]:
    try:
        stated = distribution(name).requires or []
    except PackageNotFoundError:
        return
    for requirement in stated:
        if re.search(r";.*\bextra\b", requirement):  # who asks for no extra has it not
            continue
        yield _plain(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])


def _imports(module: str) -> set[str]:
    """The top-level packages that a module's source needs, wherever in it: not those that only a type checker reads,
    nor those that it does without where they are missing.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return set()
    found = set()
    for node in _needed(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - {module.partition(".")[0]}


def _needed(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes within one but for the bodies of ``if TYPE_CHECKING`` and of a ``try`` that catches ImportError."""
    typing = isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING"
    optional = isinstance(node, ast.Try) and any(_catches(handler) for handler in node.handlers)
    skipped = getattr(node, "body", []) if typing or optional else []
    yield node
    for child in ast.iter_child_nodes(node):
        if child not in skipped:
            yield from _needed(child)


def _catches(handler: ast.ExceptHandler) -> bool:
    """Whether a missing package ends up here."""
    caught = [] if handler.type is None else ast.walk(handler.type)
    return any(isinstance(name, ast.Name) and name.id in ("ImportError", "ModuleNotFoundError") for name in caught)
