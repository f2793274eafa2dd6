"""The table of albumentations' transforms."""

from __future__ import annotations

import pytest

from ftengine.augment_table import REFUSED, TABLE, conforms, import_albumentations, make_table, render, table

KEYWORDS = {"anyOf", "enum", "type", "items", "minItems", "maxItems", "default", "additionalProperties"}
KEYWORDS |= {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "propertyNames", "$ref"}


def test_the_table_is_that_of_the_installed_version():
    assert TABLE.read_text(encoding="utf-8") == render(make_table()), "run python -m ftengine.augment_table"


def test_the_refused_exist():
    library = import_albumentations()
    assert [name for name in REFUSED if not hasattr(library, name)] == []
    assert not set(REFUSED) & set(table())


def rules(rule):
    yield rule
    for branch in [*rule.get("anyOf", []), *([rule["items"]] if "items" in rule else [])]:
        yield from rules(branch)


@pytest.mark.parametrize("name", sorted(table()))
def test_rules_use_known_words_and_take_their_own_defaults(name):
    for option, rule in table()[name]["options"].items():
        assert all(set(part) <= KEYWORDS for part in rules(rule)), option
        if "default" in rule:
            assert conforms(rule["default"], rule), option


@pytest.mark.parametrize(
    ("value", "rule", "good"),
    [
        (3, {"type": "integer"}, True),
        (3.0, {"type": "integer"}, True),
        (3.5, {"type": "integer"}, False),
        (True, {"type": "integer"}, False),
        (True, {"enum": [1]}, False),
        (None, {"enum": [None, "a"]}, True),
        (float("inf"), {"type": "number"}, False),
        (0, {"type": "number", "exclusiveMinimum": 0}, False),
        (1, {"type": "number", "exclusiveMaximum": 1}, False),
        ((1, 2), {"type": "array", "items": {"type": "number", "maximum": 1}}, False),
        ([1, 1], {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}, True),
        ([1], {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}, False),
        ("a", {"anyOf": [{"type": "number"}, {"type": "string"}]}, True),
        ({}, {"anyOf": [{"type": "number"}, {"type": "string"}]}, False),
    ],
)
def test_conforms(value, rule, good):
    assert conforms(value, rule) is good


def test_bounds_that_albumentations_checks_in_closures_are_in_the_table():
    rule = table()["ChannelDropout"]["options"]["channel_drop_range"]
    assert rule["items"] == {"type": "integer", "minimum": 1}
