"""docs/strategies.md has every strategy, and what it says of each is so."""

import json
import re

import pytest
import yaml
from doc_pages import ROOT, text
from reference import components, digits

from ftengine.cli import COMMANDS
from ftengine.document import read
from ftengine.host import Host
from ftengine.resolve import resolve

PAGE = ROOT / "docs" / "strategies.md"
SPECS = {item.name: item.spec for item in Host.discover().select("strategy") if item.plugin == "strategies"}
SPARSE = {"task": "classification", "data": "digits", "backbone": {"name": "resnet18", "weights": "none"}}


def section(name):
    """The part of the page under a heading of the third level."""
    return text(PAGE).partition(f"\n### {name}\n")[2].partition("\n##")[0]


def config(content, folder):
    file = folder / "part.yaml"
    file.write_text(yaml.safe_dump({**SPARSE, **content}))
    return resolve(read(file))


def shown(name):
    """The first block of config in a section."""
    return yaml.safe_load(re.search(r"^```yaml\n(.*?)^```$", section(name), re.DOTALL | re.MULTILINE)[1])


def test_the_catalogue_is_not_empty():
    assert {"probe", "lp_ft", "gradual", "surgical", "llrd", "l2_sp", "lora", "full"} <= set(SPECS)


@pytest.mark.parametrize("name", SPECS)
def test_a_strategy_has_a_section_with_everything_in_it(name):
    own = section(name)
    labels = re.findall(r"^- \*\*(.+?)[:.]\*\*", own, re.MULTILINE)
    assert {"When", "When not", "On digits"} <= set(labels)
    assert any(label.startswith("Formula") for label in labels)
    assert f"<!-- result: {name} -->" in own
    named = set(re.findall(r"arXiv:(\d{4}\.\d{5})", SPECS[name].paper))
    where = section("surgical") if name == "surgical_first" else own
    assert named <= set(re.findall(r"arXiv:(\d{4}\.\d{5})\]\(https://arxiv\.org/abs/\1\)", where))


@pytest.mark.parametrize("name", SPECS)
def test_the_config_of_a_section_is_that_strategy(name, tmp_path):
    assert shown(name)["strategy"] == name
    assert config(shown(name), tmp_path).strategy == name


@pytest.mark.parametrize("name", SPECS)
def test_what_a_section_says_that_the_strategy_sets_is_what_it_sets(name):
    line = re.search(rf"^strategy: {name}\b *(?:# (.+))?$", section(name), re.MULTILINE)
    said = dict(re.findall(r"(\w+): (\{.*?\}(?=, \w+:|$)|\[.*?\]|\w+)", line[1] or ""))
    own = {key: value for key, value in SPECS[name].settings.items() if (key, value) != ("freeze", "none")}
    assert {key: yaml.safe_load(value) for key, value in said.items()} == json.loads(json.dumps(own))


@pytest.mark.parametrize("name", SPECS)
def test_settings_written_out_are_the_strategy(name, tmp_path):
    written = config(json.loads(json.dumps(dict(SPECS[name].settings))), tmp_path).resolved()
    assert config({"strategy": name}, tmp_path).resolved() == written
    for line in re.findall(r"`([^`]+)`", components.settings(SPECS[name])):
        key, value = next(iter(yaml.safe_load(line).items()))
        assert value == json.loads(json.dumps(SPECS[name].settings[key]))


def test_the_table_to_choose_by_names_strategies_and_commands_that_exist():
    table = text(PAGE).partition("## Choosing")[2].partition("<!-- generated")[0]
    linked = re.findall(r"\[`(\w+)`\]\(#(\w+)\)", table)
    assert len(linked) > 10
    assert all(name == anchor and name in SPECS for name, anchor in linked)
    named = set(re.findall(r"ftengine ([a-z][\w-]*) ", text(PAGE)))
    assert {"compare", "lr-find", "export", "run"} <= named <= {*COMMANDS}


def test_the_digits_results_are_those_of_every_strategy_on_the_shown_config():
    found = json.loads(digits.FILE.read_text())
    assert {row["name"] for row in found["strategies"]} == set(SPECS)
    assert found["complete"]
    assert found["split"] == "test"
    assert all(len(row["values"]) == len(found["seeds"]) == row["planned"] for row in found["strategies"])
    assert digits.result(found["recommendation"]["strategy"]).startswith("accuracy")
