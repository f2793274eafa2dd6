"""What mkdocs does not find by itself: mkdocs.yml names this module as its hook.

The pages are written to be read in the repository, where their links lead to other files of it. On the site README is
the first page and CHANGELOG the last; a link to a file or a folder outside of the site leads to a page that shows it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference.code import LANGUAGES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TOP_LEVEL = {"index.md": ROOT / "README.md", "changelog.md": ROOT / "CHANGELOG.md"}
"""Pages of the site whose files lie outside of docs/."""

LINK = re.compile(r"(?<=\]\()(?!\w+:)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?(?=\))")
FENCED = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
NOT_RENDERED = re.compile(r"<p>(?:[^<]*\n)?(?:[-*] |\d+\. |\||#+ |```)|<!-- ?(?:result|generated)[^>]*$", re.MULTILINE)
"""What Markdown that was not understood leaves in HTML, with code taken out."""

log = logging.getLogger("mkdocs.hooks.site_pages")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Write the pages that an entry with a ``*`` stands for into the navigation."""
    config.nav = [_expanded(entry) for entry in config.nav or []]
    return config


def _expanded(entry: Any) -> Any:
    if isinstance(entry, dict):
        return {title: _expanded(value) for title, value in entry.items()}
    if isinstance(entry, list):
        return [_expanded(item) for item in entry]
    return [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.glob(entry))] if "*" in entry else entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of docs/, and one for each file and folder that any page links to."""
    for uri, path in TOP_LEVEL.items():
        files.append(File.generated(config, uri, content=path.read_text(encoding="utf-8")))
    pages = list(files.documentation_pages())
    shown = {path for file in pages for path in _linked(file) if _uri(path, files) is None}
    for path in sorted(shown):
        files.append(File.generated(config, _shown_uri(path), content=_shown(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to pages of the site."""

    def turned(match: re.Match[str]) -> str:
        path = _target(page.file, match["path"])
        if not path.exists():
            return match[0]  # mkdocs tells
        uri = _uri(path, files) or _shown_uri(path)
        return relpath(uri, dirname(page.file.src_uri)) + (match["anchor"] or "")

    parts = re.split(f"({FENCED.pattern})", markdown, flags=FENCED.flags)
    return "".join(part if place % 2 else LINK.sub(turned, part) for place, part in enumerate(parts))


def on_page_content(html: str, page: Page, **_: Any) -> None:
    """Warn of Markdown that GitHub understands and mkdocs does not."""
    found = NOT_RENDERED.search(re.sub(r"<(pre|code)\b.*?</\1>", "", html, flags=re.DOTALL))
    if found:
        log.warning("%s: not understood as Markdown: %r", page.file.src_uri, html[found.start() :][:120])


def _origin(file: File) -> Path:
    """Where the page's file is in the repository."""
    return TOP_LEVEL.get(file.src_uri, DOCS / file.src_uri)


def _target(file: File, link: str) -> Path:
    return Path(os.path.normpath(_origin(file).parent / link))


def _linked(file: File) -> Iterator[Path]:
    """What exists of the files and folders that a page links to."""
    for match in LINK.finditer(FENCED.sub("", file.content_string)):
        path = _target(file, match["path"])
        if path.exists():
            yield path


def _uri(path: Path, files: Files) -> str | None:
    """The page or picture of the site that a file is, if it is one."""
    for uri, top in TOP_LEVEL.items():
        if path == top:
            return uri
    uri = path.relative_to(DOCS).as_posix() if path.is_relative_to(DOCS) else None
    for candidate in (uri, f"{uri}/README.md"):
        file = files.get_file_from_path(candidate) if uri else None
        if file is not None and file.inclusion.is_included():
            return candidate
    return None


def _shown_uri(path: Path) -> str:
    return f"files/{path.relative_to(ROOT).as_posix()}.md"


def _shown(path: Path) -> str:
    """A page with the text of a file, or the names in a folder."""
    if path.is_dir():
        names = (entry.name + "/" * entry.is_dir() for entry in sorted(path.iterdir()) if entry.name[0] not in "._")
        language, text = "text", "\n".join(names)
    else:
        language, text = LANGUAGES.get(path.suffix, "text"), path.read_text(encoding="utf-8").rstrip()
    return f"---\nsearch: {{exclude: true}}\n---\n\n# {path.relative_to(ROOT)}\n\n````{language}\n{text}\n````\n"
