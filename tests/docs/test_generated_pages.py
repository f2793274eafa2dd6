"""What the documentation repeats from the code is what the code says."""

import re

import pytest
from doc_pages import PAGES, RENDERERS, ROOT, label, render, text
from pydantic import BaseModel, Field, create_model
from reference import config, hooks

from ftengine.cli import COMMANDS
from ftengine.host import KINDS, Host
from ftengine.plugin import Hooks

CONFIG, HOOKS, CLI = (ROOT / "docs" / name for name in ("config.md", "hooks.md", "cli.md"))


def generated(page):
    return re.findall(r"^<!-- generated: (.+) -->$", text(page), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_a_page_is_what_the_code_renders(page):
    assert text(page) == render(text(page)), "run python docs/generate.py"


def test_rendering_replaces_what_is_out_of_date():
    page = "before\n<!-- generated: schedules -->\n\nold\n\n<!-- end -->\nafter\n"
    rendered = render(page)
    assert "old" not in rendered
    assert "one_cycle" in rendered
    assert rendered.startswith("before\n")
    assert rendered.endswith("\nafter\n")
    assert render(rendered) == rendered


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_every_marked_block_is_closed_and_has_a_renderer(page):
    assert {name.split()[0] for name in generated(page)} <= set(RENDERERS)
    assert len(generated(page)) == text(page).count("<!-- end -->")


def test_every_section_of_the_config_is_described_and_linked():
    assert {f"section {name}" for name in config.sections()} <= set(generated(CONFIG))
    assert {"optimizers", "schedules"} <= set(generated(CONFIG))
    anchors = {line.lstrip("# ").replace(" ", "-").lower() for line in text(CONFIG).splitlines() if line[:1] == "#"}
    assert set(config.ANCHORS.values()) <= anchors
    assert set(config.ANCHORS) == set(config.sections()) - {"Config"}


def test_what_the_config_has_beside_a_component_is_described():
    linked = {anchor for link in config.PLACES.values() for anchor in re.findall(r"\(#([\w-]+)\)", link)}
    described = text(CONFIG)
    assert {f"reference {name}" for name in ("FreezeRef", "OptimizerRef")} <= set(generated(CONFIG))
    assert all(f"# {anchor.replace('-', ' ')}\n" in described.lower() for anchor in linked)


@pytest.mark.parametrize("kind", ["freeze", "regularizer", "adapter"])
def test_the_options_of_what_strategies_are_made_of_are_described(kind):
    with_options = {item.name for item in Host.discover().select(kind) if item.spec.options.model_fields}
    assert {f"options {kind}/{name}" for name in with_options} <= set(generated(CONFIG))
    assert f"summaries {kind}" in generated(CONFIG)


def test_a_key_without_a_description_is_refused():
    class Section(BaseModel):
        described: int = Field(1, description="What it means.")

    assert config.rows_of(Section).endswith("| `described` | int | `1` | What it means. |")
    with pytest.raises(AssertionError, match=r"without a description.*annotation=int"):
        config.rows_of(create_model("Bare", __base__=Section, undescribed=(int, 3)))


def test_results_are_rendered_on_their_line():
    page = "- **On digits:** <!-- result: full --> old\nafter\n"
    rendered = render(page)
    assert "old" not in rendered
    assert rendered.startswith("- **On digits:** <!-- result: full --> accuracy 0.")
    assert rendered.endswith("\nafter\n")


def test_every_hook_and_contract_is_described():
    assert {"hooks register", "hooks observe", "specs", "contracts"} <= set(generated(HOOKS))
    described = set(re.findall(r"^### `?(\w+)`?$", text(HOOKS), re.MULTILINE))
    assert {name for name in vars(Hooks) if not name.startswith("_")} <= described
    assert set(hooks.CONTRACTS) == set(KINDS) - {"strategy"} <= described  # a strategy is a spec alone


def test_every_command_is_described():
    assert {f"help {name}" for name in COMMANDS} <= set(generated(CLI))
