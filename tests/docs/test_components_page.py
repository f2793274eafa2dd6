"""docs/components.md has every built-in component with every option, and docs/config.md every key."""

import re

import pytest
from doc_pages import ROOT, text
from reference import catalogue, config
from reference.components import builtin

from ftengine.host import KINDS, Host
from ftengine.host_specs import TASK_KINDS
from ftengine.plugin import DatasetOptions

PAGE = text(ROOT / "docs" / "components.md")
HOST = Host.discover()
TASKS = [item.name for item in builtin("task", None)]
BUILTIN = [item for kind in KINDS for task in [None, *TASKS] for item in builtin(kind, task)]


def entry(item):
    """What the page has below the heading of a component, or of its family."""
    for part in re.split(r"^### ", PAGE, flags=re.MULTILINE):
        if item.kind == "backbone":
            if part.startswith("Backbone") and f"\n| `{item.name}` |" in part:
                return part
        elif part.startswith(f"{catalogue.heading(item)}\n"):
            return part
    return None


def test_the_page_has_a_block_for_each_kind_and_task():
    plain = {kind for kind in KINDS if kind not in (*TASK_KINDS, "backbone", "strategy")}
    wanted = {*plain, *(f"{kind} {task}" for kind in TASK_KINDS for task in TASKS)}
    assert set(re.findall(r"<!-- generated: catalogue (.+) -->", PAGE)) == wanted


def test_no_two_entries_are_called_the_same():
    headings = re.findall(r"^### .+$", PAGE, re.MULTILINE)
    assert len(set(headings)) == len(headings) > 60


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "strategy"])
def test_every_component_has_an_entry_with_all_its_options(kind):
    own = [item for item in BUILTIN if item.kind == kind]
    assert own
    for item in own:
        found = entry(item)
        assert found is not None, item.name
        shared = DatasetOptions.model_fields if kind == "dataset" else {}
        absent = [key for key in item.spec.options.model_fields if f"| `{key}` |" not in found and key not in shared]
        assert absent == [], item.name
        assert f"`{item.plugin}`" in found
        named = [*getattr(item.spec, "levels", ()), *getattr(item.spec, "weights", ()), *item.spec.requires]
        assert [name for name in named if f"`{name}`" not in found] == [], item.name


def test_every_strategy_is_linked():
    linked = set(re.findall(r"^\| \[`(\w+)`\]\(strategies\.md#\1\) \|", PAGE, re.MULTILINE))
    assert linked == {item.name for item in builtin("strategy", None)}


def test_the_example_of_a_component_names_it_with_its_options():
    (lora,) = builtin("adapter", None)
    assert catalogue.example(lora) == "adapter: lora"
    heads = {item.name: item for item in builtin("head", "detection")}
    assert catalogue.example(heads["fcos"]).startswith("head: {name: fcos, ")
    assert catalogue.example(HOST.find("dataset", "folder")) is None, "its files are the reader's"


def test_every_key_of_the_config_is_described():
    page = text(ROOT / "docs" / "config.md")
    keys = {(name, key) for name, model in config.sections().items() for key in model.model_fields}
    assert len(keys) > 80
    assert [(name, key) for name, key in sorted(keys) if f"\n| `{key}` |" not in page] == []
