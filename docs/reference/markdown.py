"""Docstrings and tables as Markdown."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def prose(text: str) -> str:
    """reStructuredText's inline marks as Markdown's."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


def plain(text: str) -> str:
    """Text in which only backticks mean something: other marks, as of the glob c2.*.bn1.*, stand for themselves."""
    parts = re.split("(`[^`]*`)", text)
    return "".join(
        part if place % 2 else part.replace("<", "&lt;").replace("*", r"\*") for place, part in enumerate(parts)
    )


def docstring(thing: object) -> str:
    """A docstring, with its code blocks fenced."""
    text = inspect.getdoc(thing) or ""
    parts = re.split(r"((?:^|\n\n)?[^\n]*::\n\n(?:    [^\n]*\n?|\n)+)", text)
    result = ""
    for part in parts:
        intro, separator, block = part.partition("::\n\n")
        if not separator:
            result += prose(part)
            continue
        intro = intro.rstrip()
        lead = f"{prose(intro)}:" if intro else ""
        result += f"{lead}\n\n```python\n{textwrap.dedent(block).strip()}\n```\n\n"
    return re.sub(r"\n{3,}", "\n\n", result).strip()
