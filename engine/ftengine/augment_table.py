"""What is known of albumentations' transforms without importing it, and how that is made.

Importing albumentations imports torch and takes seconds; checking a config must not. So ``augmentations.json`` holds
the options of its transforms as JSON Schemas, made from albumentations' own validation models:
``python -m ftengine.augment_table`` writes it anew from the installed version. Version 2.0 is the last one under the
MIT licence, so the table does not go stale.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import AfterValidator

__all__ = ["ELSEWHERE", "REFUSED", "conforms", "expected", "import_albumentations", "make_table", "render", "table"]

TABLE = Path(__file__).with_name("augmentations.json")

REFUSED = {
    name: reason
    for names, reason in (
        (
            "Normalize ToFloat FromFloat ToTensorV2",
            "images stay uint8, and are normalised on the device with the backbone's mean and std",
        ),
        ("RandomCropNearBBox", "it needs one box that is named apart from the others; use AtLeastOneBBoxRandomCrop"),
        (
            "FDA HistogramMatching Mosaic OverlayElements PixelDistributionAdaptation TextImage",
            "it needs other images or texts, and sees one image",
        ),
        (
            "CenterCrop3D CoarseDropout3D CubicSymmetry Pad3D PadIfNeeded3D RandomCrop3D ToTensor3D",
            "it works on volumes, not on images",
        ),
        ("Lambda", "it needs a Python function"),
        ("ToRGB", "images are RGB already"),
        ("Compose ReplayCompose", "use Sequential for a group in order"),
        ("OneOrOther", "use OneOf"),
        ("SelectiveChannelTransform", "transforms get all three channels"),
    )
    for name in names.split()
}
"""Transforms that albumentations has and a config cannot use, with the reason."""

ELSEWHERE = {
    name: hint
    for names, hint in (
        ("cutout", "use CoarseDropout"),
        ("cutmix randomcutmix", "images of a batch are mixed by the config's section `mix`: {cutmix: 1.0}"),
        ("mixup randommixup", "images of a batch are mixed by the config's section `mix`: {mixup: 0.2}"),
        ("randomerase randomerasing", "use Erasing"),
    )
    for name in names.split()
}
"""Names that other libraries have, in small letters alone, and what does the same here."""


NEEDS = {
    "AtLeastOneBBoxRandomCrop": ["boxes"],
    "BBoxSafeRandomCrop": ["boxes"],
    "ConstrainedCoarseDropout": ["mask"],
    "CropNonEmptyMaskIfExists": ["mask"],
    "MaskDropout": ["mask"],
    "RandomSizedBBoxSafeCrop": ["boxes"],
}
"""Transforms that look at boxes or masks to do their work."""

SPOILS: dict[str, dict[str, str]] = {
    "FrequencyMasking": {"mask": "it would fill the mask with class 0; use XYMasking"},
    "GridElasticDeform": {"mask": "it would leave gaps of class 0 between the cells; use GridDistortion"},
    "MaskDropout": {"boxes": "it would leave the boxes of what it erases"},
    "Morphological": {"mask": "it would spread the classes with higher numbers over the others"},
    "TimeMasking": {"mask": "it would fill the mask with class 0; use XYMasking"},
}
"""Transforms that albumentations lets have boxes or masks, and that leave them wrong."""

MASK_INTERPOLATIONS = (0, 6)
"""OpenCV's numbers for the nearest pixel, and for exactly the nearest."""

OWN_DEFAULTS = {("fill_mask", 0): 255, ("ignore_values", None): [255]}
"""By option and albumentations' default, the default here: 255 marks what is not learnt from.

A ``fill_mask`` that is None stays so: with it, dropouts leave the mask as it is.
"""


# --- reading the table -------------------------------------------------------------------------------------------


@functools.cache
def table() -> dict[str, Any]:
    """What is known of each transform: its ``description``, the ``required`` options, the ``options``' JSON Schemas.

    ``needs`` are the spatial fields (boxes, mask) that it cannot do without, and ``spoils`` those that it does not move
    as it moves the image, each with the reason.
    """
    transforms: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))["transforms"]
    return transforms


_TYPES: dict[str, type | tuple[type, ...]] = {
    "array": (list, tuple),
    "boolean": bool,
    "integer": (int, float),
    "null": type(None),
    "number": (int, float),
    "object": dict,
    "string": str,
}


def conforms(value: Any, rule: Mapping[str, Any]) -> bool:
    """Whether `value` keeps to `rule`, a JSON Schema of the few keywords that the table uses."""
    if "anyOf" in rule:
        return any(conforms(value, branch) for branch in rule["anyOf"])
    if "enum" in rule:
        return any(value == choice and type(value) is type(choice) for choice in rule["enum"])
    kind = rule.get("type")
    if kind is None:
        return True
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return False
    if isinstance(value, list | tuple):
        return rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", math.inf) and all(
            conforms(item, rule.get("items", {})) for item in value
        )
    if isinstance(value, int | float):
        return bool(
            math.isfinite(value)
            and (kind != "integer" or value == int(value))
            and rule.get("minimum", -math.inf) <= value <= rule.get("maximum", math.inf)
            and rule.get("exclusiveMinimum", -math.inf) < value < rule.get("exclusiveMaximum", math.inf)
        )
    return True


def expected(rule: Mapping[str, Any]) -> str:
    """`rule` in words."""
    if "anyOf" in rule:
        branches = sorted(rule["anyOf"], key=lambda branch: branch.get("type") == "array")
        return " or ".join(dict.fromkeys(expected(branch) for branch in branches))
    if "enum" in rule:
        choices = ["null" if choice is None else str(choice) for choice in rule["enum"]]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    kind = str(rule.get("type"))
    if kind == "array":
        least, most = rule.get("minItems"), rule.get("maxItems")
        count = "" if least is None else f" of {least}" if least == most else f" of at least {least}"
        each = f", each {expected(rule['items'])}" if "type" in rule.get("items", {}) else ""
        return f"a list{count}{each}"
    names = {"integer": "an integer", "number": "a number", "boolean": "true or false", "object": "a mapping"}
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {rule[key]}" for key, sign in signs.items() if key in rule]
    return " ".join([names.get(kind, kind), " and ".join(limits)]).strip()


# --- making the table --------------------------------------------------------------------------------------------


ABSTRACT = ("BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D")

TRANSFORMS = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/augmentation"}}
GROUPS: dict[str, dict[str, Any]] = {
    "OneOf": {},
    "Sequential": {},
    "SomeOf": {"n": {"type": "integer", "minimum": 1}, "replace": {"type": "boolean"}},
    "RandomOrder": {"n": {"type": "integer", "minimum": 1}, "replace": {"type": "boolean"}},
}
"""The compositions that a config may use; albumentations has no models of their options."""

FORCED = {"ConstrainedCoarseDropout": ["mask_indices"]}
"""Options that albumentations lets out and a config cannot."""

OVERRIDES = {("ToGray", "num_output_channels"): {"enum": [3]}}
"""What albumentations allows and this program cannot: other than three channels."""


def import_albumentations() -> Any:
    """The library, silent and with one thread; takes seconds, and imports torch."""
    # It asks PyPI for a newer version when it is imported, unless this is set.
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations  # type: ignore[import-untyped]
    import cv2

    cv2.setNumThreads(0)
    return albumentations


def make_table() -> dict[str, Any]:
    """The table: the library's version, and for each transform its options as JSON Schemas and which it requires."""
    library = import_albumentations()
    transforms = {}
    for name, cls in sorted(vars(library).items()):
        if not inspect.isclass(cls) or name in REFUSED or name in ABSTRACT:
            continue
        if name in GROUPS:
            rules = {"transforms": TRANSFORMS, **GROUPS[name], "p": {"type": "number", "minimum": 0, "maximum": 1}}
        elif issubclass(cls, library.BasicTransform):
            rules = _rules(name, cls)
        else:
            continue
        transforms[name] = _transform(cls, rules)
    return {"albumentations": library.__version__, "transforms": transforms}


def _transform(cls: type, rules: dict[str, Any]) -> dict[str, Any]:
    """`rules` by option, in the constructor's order and with its defaults."""
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    options = {}
    for name, parameter in parameters.items():
        if name in rules:
            default = parameter.default
            known = isinstance(default, str | int | float | bool | None)
            default = OWN_DEFAULTS.get((name, default), default) if known else default
            options[name] = {**rules[name], **({"default": default} if default is not parameter.empty else {})}
    for name in FORCED.get(cls.__name__, ()):
        del options[name]["default"]
    return {
        "description": (inspect.getdoc(cls) or "").split("\n")[0],
        "required": [name for name in options if "default" not in options[name]],
        "needs": NEEDS.get(cls.__name__, []),
        "spoils": _left(cls) | SPOILS.get(cls.__name__, {}),
        "options": options,
    }


def _left(cls: Any) -> dict[str, str]:
    """The spatial fields that `cls` moves an image without, by albumentations' own account."""
    library = import_albumentations()
    if not issubclass(cls, library.DualTransform):  # it moves nothing, or, in a group, what its parts move
        return {}
    targets = {target.value for target in cls._targets}
    fields = {"boxes": "BBoxes", "mask": "Mask"}
    return {field: f"it cannot transform {field}" for field, target in fields.items() if target not in targets}


def _rules(name: str, cls: Any) -> dict[str, Any]:
    """The options of a transform as JSON Schemas, from its model."""
    properties = cls.InitSchema.model_json_schema()["properties"]
    rules = {}
    for option, info in cls.InitSchema.model_fields.items():
        if option != "strict" and (name, option) != ("ConstrainedCoarseDropout", "bbox_labels"):
            rule = _simplify(properties[option])
            rules[option] = OVERRIDES.get((name, option), _bounded(rule, _bounds(info.metadata)))
    return rules


def _simplify(rule: Any) -> Any:
    """`rule` without titles and defaults, and ``prefixItems``, whose items are all alike here, as ``items``."""
    if isinstance(rule, list):
        return [_simplify(part) for part in rule]
    if not isinstance(rule, dict):
        return rule
    simple = {key: _simplify(part) for key, part in rule.items() if key not in ("title", "default", "description")}
    if "prefixItems" in simple:
        first, *others = simple.pop("prefixItems")
        if any(other != first for other in others):
            raise ValueError(f"a tuple of unlike items, which the table does not know: {rule}")
        simple["items"] = first
    return simple


def _bounds(metadata: Iterable[Any]) -> dict[str, float]:
    """The limits of a range's two ends, which albumentations checks in a closure that JSON Schema does not see."""
    for validator in metadata:
        if isinstance(validator, AfterValidator) and "check_range_bounds" in validator.func.__qualname__:
            seen = inspect.getclosurevars(validator.func).nonlocals
            low = "minimum" if seen["min_inclusive"] else "exclusiveMinimum"
            high = "maximum" if seen["max_inclusive"] else "exclusiveMaximum"
            limits = {low: seen["min_val"], high: seen["max_val"]}
            return {key: value for key, value in limits.items() if value is not None}
    return {}


def _bounded(rule: dict[str, Any], bounds: dict[str, float]) -> dict[str, Any]:
    """`rule` with `bounds` on the items of its lists."""
    if not bounds:
        return rule
    if "anyOf" in rule:
        return {**rule, "anyOf": [_bounded(branch, bounds) for branch in rule["anyOf"]]}
    return {**rule, "items": {**rule["items"], **bounds}} if rule["type"] == "array" else rule


def render(made: dict[str, Any]) -> str:
    """`made` as JSON text, a transform a line, so that a new version's changes can be read."""
    lines = [f"  {json.dumps(name)}: {json.dumps(transform)}" for name, transform in made["transforms"].items()]
    version = json.dumps(made["albumentations"])
    return f'{{"albumentations": {version}, "transforms": {{\n' + ",\n".join(lines) + "\n}}\n"


if __name__ == "__main__":
    TABLE.write_text(render(make_table()), encoding="utf-8")
