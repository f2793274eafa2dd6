"""Augmentations in a config: checking them, and a schema for editors, without importing albumentations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from ftengine.augment_table import ELSEWHERE, MASK_INTERPOLATIONS, REFUSED, conforms, expected, table
from ftengine.errors import unknown

__all__ = ["Entry", "Problems", "check", "schema"]

Entry = str | Mapping[str, Any]
Problems = list[tuple[str, str]]


def check(entries: Sequence[Entry], fields: Set[str] = frozenset()) -> Problems:
    """What is wrong with `entries`: pairs of the place within them, as ``[0].p``, and a message.

    `fields` are what the data have besides images: ``boxes``, ``mask``, both or neither.
    """
    return [problem for i, entry in enumerate(entries) for problem in _check_entry(entry, f"[{i}]", fields)]


def schema() -> dict[str, Any]:
    """A JSON Schema of a list of entries, for editors.

    Its ``$defs`` has one definition, ``augmentation``, referred to as ``#/$defs/augmentation``: whoever embeds the
    schema moves that to the top of the document.
    """
    transforms = table()
    bare = [name for name, transform in transforms.items() if not transform["required"]]
    options = [
        {
            "if": {"properties": {"name": {"const": name}}},
            "then": {
                "description": transform["description"],
                "properties": {"name": True, **transform["options"]},
                "required": transform["required"],
                "additionalProperties": False,
            },
        }
        for name, transform in transforms.items()
    ]
    mapping = {
        "type": "object",
        "properties": {"name": {"enum": list(transforms)}},
        "required": ["name"],
        "allOf": options,
    }
    entry = {"anyOf": [{"enum": bare}, mapping]}
    return {"type": "array", "items": {"$ref": "#/$defs/augmentation"}, "$defs": {"augmentation": entry}}


def _check_entry(entry: Entry, place: str, fields: Set[str]) -> Problems:
    options = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
        return [(place, f"expected a transform's name, or a mapping with `name` and its options; got {entry!r}")]
    name = options["name"]
    if name in REFUSED:
        return [(place, f"{name} cannot be used: {REFUSED[name]}")]
    if name not in table():
        hint = ELSEWHERE.get(name.lower().replace("_", "").replace("-", ""))
        return [(place, f"unknown augmentation {name!r}; {hint}" if hint else unknown("augmentation", name, table()))]
    known, required = table()[name]["options"], table()[name]["required"]
    problems = [(place, f"{name} cannot be used: {reason}") for reason in _unfit(name, fields)]
    problems += [(place, f"{name} needs `{option}`") for option in required if option not in options]
    for option, value in options.items():
        if option == "name":
            continue
        if option not in known:
            problems.append((f"{place}.{option}", unknown(f"option of {name}", str(option), known)))
        elif not conforms(value, known[option]):
            problems.append((f"{place}.{option}", f"expected {expected(known[option])}; got {value!r}"))
        elif option == "mask_interpolation" and "mask" in fields and value not in MASK_INTERPOLATIONS:
            problems.append((f"{place}.{option}", f"expected 0, since the numbers of classes do not mix; got {value}"))
        elif option == "transforms":
            problems += [(f"{place}.transforms{inner}", message) for inner, message in check(value, fields)]
            count = options.get("n", 1)
            if isinstance(count, int) and count > len(value) and not options.get("replace"):
                problems.append((f"{place}.n", f"{name} of {count} has only {len(value)} transforms"))
    return problems


def _unfit(name: str, fields: Set[str]) -> list[str]:
    """Why the data, with `fields` besides images, do not go with transform `name`."""
    reasons = [
        f"it needs {field}, which the data do not have" for field in table()[name]["needs"] if field not in fields
    ]
    return reasons + [reason for field, reason in table()[name]["spoils"].items() if field in fields]
