"""docs/conformance.md: every check of the kit has its section, and the tests that the page shows can be written so."""

import re
import sys

import pytest
from doc_pages import ROOT, blocks, text
from page_settings import scaffold

from ftengine.host import KINDS

PAGE = ROOT / "docs" / "conformance.md"
ALL = {"all": KINDS, "all but strategies": tuple(kind for kind in KINDS if kind != "strategy")}


def sections():
    """The sections that explain a check, in order, and what each says; others have a capital letter."""
    parts = re.split(r"^## (.+)$", text(PAGE), flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True) if name == name.lower()}


@pytest.fixture(scope="module")
def names():
    from ftengine.testing.kit import CHECKS

    return {one.name.replace("_", "-"): one.kinds for one in CHECKS}


def test_every_check_has_a_section_and_every_section_a_check(names):
    assert list(sections()) == list(names)
    assert [name for name, body in sections().items() if len(body.split()) < 20] == []


def test_the_table_has_every_check_of_every_kind(names):
    rows = re.findall(r"^\| ([\w ]+) \| (\[.+) \|$", text(PAGE), re.MULTILINE)
    listed = {}
    for row, links in rows:
        for name in re.findall(r"\[([\w-]+)\]\(#\1\)", links):
            listed.setdefault(name, []).extend(ALL.get(row, (row,)))
    assert {name: set(kinds) for name, kinds in listed.items()} == {name: set(kinds) for name, kinds in names.items()}
    assert all(len(kinds) == len(set(kinds)) for kinds in listed.values())


@pytest.fixture
def acme(tmp_path, monkeypatch):
    scaffold(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    _forget()  # that of another test, which has the same name
    yield
    _forget()


def _forget():
    for module in [module for module in sys.modules if module.partition(".")[0] == "acme_vision"]:
        del sys.modules[module]


@pytest.mark.usefixtures("acme")
def test_the_tests_that_it_shows_can_be_written():
    namespace, written = {}, []
    for block in blocks(PAGE, "python"):
        exec(block, namespace)
        subjects = {case.values[0][0] for case in namespace["TestConformance"]()._cases()}
        assert {subject.kind for subject in subjects} == {"backbone", "loss", "metric"}
        for subject in subjects:
            assert subject.plan.backbone  # which raises if the config has a mistake
        written.append({key for key in ("config", "configs", "left_out") if key in vars(namespace["TestConformance"])})
    assert written == [set(), {"config", "configs"}, {"left_out"}]
