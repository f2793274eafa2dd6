"""The site: every page is in its navigation, nothing is fetched from elsewhere, a mistake in a page fails the build."""

import logging
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import site_pages
import yaml
from doc_pages import ALL_PAGES, ROOT

CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
MISTAKES = {
    "a link to nothing": "See [this](nowhere.md).",
    "an anchor that is not there": "See [this](config.md#nowhere).",
    "a list that is not understood": "Three things:\n- one\n- two\n",
}


def paths(entry):
    if isinstance(entry, dict | list):
        return [path for part in (entry.values() if isinstance(entry, dict) else entry) for path in paths(part)]
    return [entry]


def test_every_page_is_in_the_navigation_once():
    listed = paths(site_pages.on_config(SimpleNamespace(nav=CONFIG["nav"])).nav)
    assert len(set(listed)) == len(listed)
    packages = (ROOT / "docs" / "examples").glob("*/README.md")
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in packages}
    tops = {path: uri for uri, path in site_pages.TOP_LEVEL.items()}
    for page in ALL_PAGES:
        pages.add(tops.get(page) or page.relative_to(ROOT / "docs").as_posix())
    assert set(listed) == pages


def test_warnings_fail_and_ci_builds_it():
    assert CONFIG["strict"] is True
    assert {"warn"} == {level for part in CONFIG["validation"].values() for level in part.values()}
    assert "\nuv run mkdocs build --strict\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize(
    ("html", "warns"),
    [
        ("<p>Three things:\n- one\n- two</p>", True),
        ("<p>| a | b |\n| --- | --- |</p>", True),
        ("<p>One - two | three</p><pre>\n- one\n| a |</pre>", False),
        ("<ul>\n<li>one</li>\n</ul>", False),
    ],
)
def test_markdown_that_was_not_understood_is_found(html, warns, caplog):
    with caplog.at_level(logging.WARNING, "mkdocs"):
        site_pages.on_page_content(html, SimpleNamespace(file=SimpleNamespace(src_uri="a.md")))
    assert bool(caplog.records) is warns


@pytest.fixture
def clone(tmp_path):
    """A copy of what the site is made of."""
    skipped = shutil.ignore_patterns("__pycache__", "*.png.tmp")
    for name in ("docs", "configs", "engine", "plugins", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=skipped)
    for name in ("README.md", "CHANGELOG.md", "mkdocs.yml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def build(folder):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_it_builds_and_a_reader_fetches_nothing_from_elsewhere(clone):
    done = build(clone)
    assert done.returncode == 0, done.stderr
    pages = [path.read_text() for path in (clone / "site").rglob("*.html")]
    assert len(pages) > 40
    loaded = re.compile(r"<(?:script|img|iframe)\b[^>]*\bsrc=\"?(?:https?:)?//|<link\b[^>]*\bhref=\"?(?:https?:)?//")
    assert [match[0] for page in pages for match in loaded.finditer(page)] == []
    shown = (clone / "site" / "files" / "configs" / "detection" / "bccd.yaml.html").read_text()
    assert "Blood cells in 364 photos" in shown
    assert 'href="files/configs/detection/bccd.yaml.html"' in (clone / "site" / "quickstart.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_page_fails_the_build(mistake, clone):
    page = clone / "docs" / "faults.md"
    page.write_text(page.read_text() + "\n" + MISTAKES[mistake] + "\n")
    done = build(clone)
    assert done.returncode == 1
    assert "faults.md" in done.stderr
