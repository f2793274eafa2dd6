"""Some of a module's definitions, with what they need, as a module of their own."""

from __future__ import annotations

import ast
from collections.abc import Iterable

LINE_LENGTH = 120


def cut(source: str, wanted: Iterable[str]) -> str | None:
    """`source` with only those of its top-level definitions that are `wanted` or needed by these, and their imports.

    The module's docstring stays. None if nothing else would.
    """
    lines = source.splitlines()
    tree = ast.parse(source)
    definitions = {name: node for node in tree.body for name in _defined(node)}
    kept: dict[str, ast.stmt] = {}
    open_ends = [name for name in wanted if name in definitions]
    while open_ends:
        name = open_ends.pop()
        if name not in kept:
            kept[name] = definitions[name]
            open_ends += [used for used in _used(kept[name]) if used in definitions]
    if not kept:
        return None
    names = {used for node in kept.values() for used in _used(node)}
    pieces, last, gap = [], 0, 0
    for node in tree.body:
        # What stands right above a statement, a comment or a decorator, is a part of it.
        text = "\n".join(lines[last : node.end_lineno])
        last = node.end_lineno or 0
        bare = text.lstrip("\n")
        # The first import of a group that stays gets the blank line before the group.
        gap = max(gap, len(text) - len(bare))
        if isinstance(node, ast.Import | ast.ImportFrom):
            bare = _import(node, names)
        elif not isinstance(node, ast.Expr) and not any(name in kept for name in _defined(node)):
            bare = ""
        if bare:
            pieces.append("\n" * gap + bare)
            gap = 0
    return "\n".join(pieces) + "\n"


def _defined(node: ast.stmt) -> list[str]:
    """The names that a top-level statement gives a meaning to, but for imports."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _used(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _import(node: ast.Import | ast.ImportFrom, names: set[str]) -> str:
    """The import of what is among `names`, as a formatter writes it; empty if that is nothing."""
    aliases = [alias for alias in node.names if (alias.asname or alias.name.partition(".")[0]) in names]
    if not aliases:
        return ""
    words = [alias.name + (f" as {alias.asname}" if alias.asname else "") for alias in aliases]
    if isinstance(node, ast.Import):
        return f"import {', '.join(words)}"
    line = f"from {node.module} import {', '.join(words)}"
    if len(line) <= LINE_LENGTH:
        return line
    return "\n".join([f"from {node.module} import (", *(f"    {word}," for word in words), ")"])
