"""Links, names and configs in the documentation exist and hold."""

import importlib
import re

import pytest
import yaml
from doc_pages import ALL_PAGES, ROOT, blocks, label, text

from ftengine.config import parse
from ftengine.document import read
from ftengine.errors import ConfigError
from ftengine.resolve import resolve

README = ROOT / "README.md"
LINES = (
    "python -m pip install uv && uv run ftengine run --task classification --config configs/classification/digits.yaml",
    "python -m pip install uv && uv run pytest",
)


@pytest.mark.parametrize("line", LINES)
def test_the_readme_has_the_lines_that_need_no_set_up(line):
    assert f"\n    {line}\n" in text(README)


def links(page):
    return re.findall(r"\]\(([^)]+)\)", re.sub(r"^```.*?^```$", "", text(page), flags=re.DOTALL | re.MULTILINE))


def anchors(page):
    headings = [line.lstrip("#").strip() for line in text(page).splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL_PAGES, ids=label)
def test_relative_links_resolve(page):
    broken = []
    for link in links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_links_to_every_page():
    linked = {(README.parent / link).resolve() for link in links(README)}
    assert set((ROOT / "docs").glob("*.md")) <= linked


def resolve_name(name):
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            thing = getattr(thing, part)
        return thing
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("page", ALL_PAGES, ids=label)
def test_every_function_and_module_that_is_named_exists(page):
    for name in sorted(set(re.findall(r"`(ftengine(?:_\w+)?(?:\.\w+)+)`", text(page)))):
        if not name.endswith((".json", ".py", ".yaml")):
            assert resolve_name(name) is not None


def test_the_check_of_names_finds_a_wrong_one():
    assert resolve_name("ftengine.loop.fit").__name__ == "fit"
    with pytest.raises(AttributeError):
        resolve_name("ftengine.loop.fitt")


def whole_configs(page):
    """The YAML blocks that are whole files; the others show a part of one."""
    return [block for block in blocks(page, "yaml") if "backbone" in yaml.safe_load(block)]


@pytest.mark.parametrize("page", [page for page in ALL_PAGES if whole_configs(page)], ids=label)
def test_whole_configs_hold(page, tmp_path):
    for number, block in enumerate(whole_configs(page)):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block)
        if "acme/" in block:  # the package that the page describes is installed in a test of its own
            assert parse(read(file))[1] == []
        else:
            assert resolve(read(file)).tasks


@pytest.mark.parametrize("page", ALL_PAGES, ids=label)
def test_parts_of_configs_have_the_configs_keys(page, tmp_path):
    for number, block in enumerate(blocks(page, "yaml")):
        part = yaml.safe_load(block)
        whole = {"task": "classification", "data": "digits", "backbone": "resnet18"}
        if "tasks" in part:
            del whole["task"]
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump({**whole, **part}))
        if "acme/" not in block:
            assert resolve(read(file)).streams


def test_the_errors_that_the_readme_shows_are_the_real_ones(tmp_path, monkeypatch):
    shown = next(block for block in blocks(README, "console") if "bad.yaml" in block)
    (tmp_path / "bad.yaml").write_text(
        "task: classification\ndata: digits\nbackbone: resnet81\nmetrics: [accurracy]\ntrain: {epoch: 3}\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        resolve(read((tmp_path / "bad.yaml").relative_to(tmp_path)))
    assert shown == f"$ ftengine run --config bad.yaml\nError: {caught.value}\n"
