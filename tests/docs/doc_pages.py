"""The pages of the documentation, their code blocks, and the module that renders what repeats the code."""

import re
from pathlib import Path

import generate

ROOT = Path(__file__).resolve().parents[2]

PAGES = generate.PAGES
ALL_PAGES = [*PAGES, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

render = generate.render
RENDERERS = generate.RENDERERS


def text(page):
    return page.read_text(encoding="utf-8")


def blocks(page, language):
    """The code blocks of a page in one language, in order."""
    return [content for found, content in FENCED.findall(text(page)) if found == language]


def label(page):
    return str(page.relative_to(ROOT))
