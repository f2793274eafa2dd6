"""Writes the parts of the documentation that repeat what the code says.

``python docs/generate.py`` renders every block between ``<!-- generated: NAME -->`` and ``<!-- end -->`` anew, and what
follows a ``<!-- result: NAME -->`` on its line; the tests fail while a page differs from its rendering.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from reference import catalogue, code, components, config, digits, hooks, tasks

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RESULT = re.compile(r"(<!-- result: (?P<name>\w+) -->).*")
"""Where the rest of a line is a strategy's result."""
BLOCK = re.compile(r"(<!-- generated: (?P<name>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)

RENDERERS: dict[str, Callable[[str], str]] = {
    "section": config.section,
    "reference": config.reference,
    "options": config.options,
    "data": config.data,
    "optimizers": config.optimizers,
    "schedules": config.schedules,
    "components": components.table,
    "heads": components.heads,
    "summaries": components.summaries,
    "catalogue": catalogue.catalogue,
    "backbones": catalogue.backbones,
    "strategy-links": catalogue.strategies,
    "configs": code.configs,
    "strategies": components.strategies,
    "results": digits.results,
    "hooks": hooks.hooks,
    "specs": hooks.specs,
    "contracts": hooks.contracts,
    "places": hooks.places,
    "fields": hooks.fields,
    "tasks": tasks.tasks,
    "help": code.help_text,
    "file": code.file,
    "scaffold": code.scaffold,
}


def render(text: str) -> str:
    """A page with each of its blocks, and of its results, as the code and the comparison say it now."""

    def block(match: re.Match[str]) -> str:
        name, _, argument = match["name"].partition(" ")
        return f"{match[1]}\n{RENDERERS[name](argument).strip()}\n\n{match[3]}"

    return BLOCK.sub(block, RESULT.sub(lambda match: f"{match[1]} {digits.result(match['name'])}", text))


def main() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(render(text), encoding="utf-8")


if __name__ == "__main__":
    main()
