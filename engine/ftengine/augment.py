"""Augmentation by albumentations' class names, checked without importing it and random by seed alone.

A config lists transforms in order, each a class name or a mapping of ``name`` and options::

    augment:
      - HorizontalFlip
      - {name: Rotate, limit: 15, p: 0.8}
      - {name: OneOf, transforms: [GaussNoise, {name: MotionBlur, blur_limit: 5}]}

Importing albumentations imports torch, so `check` and `schema` read a table (:mod:`ftengine.augment_table`). What that
cannot express, for example that one option excludes another, the constructors tell in `build`, still before any
training.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ftengine.augment_table import REFUSED, conforms, expected, import_albumentations, table
from ftengine.errors import ConfigError, DataError, Problem, unknown

if TYPE_CHECKING:
    import numpy as np

    from ftengine.geometry import Scene

__all__ = ["Augment", "build", "check", "schema"]

Entry = str | Mapping[str, Any]
Problems = list[tuple[str, str]]

# --- without torch: checking a config ---------------------------------------------------------------------------


def check(entries: Sequence[Entry], fields: frozenset[str] = frozenset()) -> Problems:
    """What is wrong with `entries`: pairs of the place within them, as ``[0].p``, and a message."""
    return [problem for i, entry in enumerate(entries) for problem in _check_entry(entry, f"[{i}]")]


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


def _check_entry(entry: Entry, place: str) -> Problems:
    options = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
        return [(place, f"expected a transform's name, or a mapping with `name` and its options; got {entry!r}")]
    name = options["name"]
    if name in REFUSED:
        return [(place, f"{name} cannot be used: {REFUSED[name]}")]
    if name not in table():
        return [(place, unknown("augmentation", name, table()))]
    known, required = table()[name]["options"], table()[name]["required"]
    problems = [(place, f"{name} needs `{option}`") for option in required if option not in options]
    for option, value in options.items():
        if option == "name":
            continue
        if option not in known:
            problems.append((f"{place}.{option}", unknown(f"option of {name}", str(option), known)))
        elif not conforms(value, known[option]):
            problems.append((f"{place}.{option}", f"expected {expected(known[option])}; got {value!r}"))
        elif option == "transforms":
            problems += [(f"{place}.transforms{inner}", message) for inner, message in check(value)]
            count = options.get("n", 1)
            if isinstance(count, int) and count > len(value) and not options.get("replace"):
                problems.append((f"{place}.n", f"{name} of {count} has only {len(value)} transforms"))
    return problems


# --- with albumentations: building and running ------------------------------------------------------------------


class Augment:
    """A pipeline, called as ``augment(image, seed)``. Pickles; not to be shared between threads."""

    def __init__(self, entries: Sequence[Entry], place: str, compose: Any) -> None:
        from numpy.random import PCG64, Generator  # here, since checking a config need not wait for NumPy either

        self._entries = list(entries)
        self._place = place
        self._compose = compose
        # albumentations' set_random_seed would give each transform a generator of its own with the same seed: all
        # of them would draw the same numbers, so that two flips with p=0.5 happened both or not at all. One pair of
        # generators that all share is right, and three times as fast to seed.
        self._python = random.Random(0)
        self._numpy = Generator(PCG64(0))
        compose.set_random_state(self._numpy, self._python)

    def __call__(self, scene: Scene, seed: int) -> Scene:
        return replace(scene, image=self._image(scene.image, seed))

    def _image(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Augments `image`, uint8 [H, W, 3] RGB, to uint8 [H', W', 3]; the size may change with crops and the like.

        The result depends on `image` and `seed` (≥ 0) only: not on the process, nor on earlier calls; `image`
        itself stays as it is. Raises DataError, naming the entry, where a transform cannot take the image.
        """
        self._reseed(seed)
        try:
            result: np.ndarray = self._compose(image=image)["image"]
        except Exception as error:
            raise DataError(f"{self._culprit(image, seed)} failed on an image of {_shape(image)}: {error}") from error
        if not _is_rgb(result):
            culprit = self._culprit(image, seed)
            raise DataError(f"{culprit} made {result.dtype} {_shape(result)} of uint8 {_shape(image)}")
        return result if result.flags.c_contiguous else result.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return build, (self._entries, self._place)

    def _reseed(self, seed: int) -> None:
        self._python.seed(seed)
        self._numpy.bit_generator.state = type(self._numpy.bit_generator)(seed).state

    def _culprit(self, image: np.ndarray, seed: int) -> str:
        """The first entry that goes wrong: the same seed takes the same way again, one transform at a time."""
        self._reseed(seed)
        self._python.random()  # the pipeline's own draw
        data: dict[str, Any] = {"image": image}
        for i, transform in enumerate(self._compose.transforms):
            try:
                data = transform(**data)
                broken = not _is_rgb(data["image"])
            except Exception:
                broken = True
            if broken:
                return f"{self._place}[{i}]: {type(transform).__name__}"
        return self._place


def build(entries: Sequence[Entry], place: str = "augment", fields: frozenset[str] = frozenset()) -> Augment:
    """The pipeline of `entries`, as a config has them; `place` is their path in it, for errors.

    Raises ConfigError with all that `check` or the transforms' constructors find wrong. OpenCV's own threads are
    switched off in this process: the loader's workers are the parallelism.
    """
    problems = check(entries)
    if not problems:
        library = import_albumentations()
        transforms = [_make(library, entry, f"[{i}]", problems) for i, entry in enumerate(entries)]
    if problems:
        raise ConfigError([Problem(place + inner, message) for inner, message in problems])
    return Augment(entries, place, library.Compose(transforms))


def _make(library: Any, entry: Entry, place: str, problems: Problems) -> Any:
    options = {} if isinstance(entry, str) else dict(entry)
    name = options.pop("name", entry)
    inner = options.pop("transforms", None)
    if inner is not None:
        made = [_make(library, one, f"{place}.transforms[{i}]", problems) for i, one in enumerate(inner)]
        if None in made:
            return None
        options["transforms"] = made
    cls = getattr(library, name)
    if "InitSchema" in vars(cls):  # it validates its options
        options["strict"] = True  # or else it only warns of some mistakes, and takes its defaults
    try:
        return cls(**options)
    except Exception as error:
        problems.append((place, f"{name}: {_reason(error)}"))
        return None


def _reason(error: Exception) -> str:
    """A constructor's error in one line; pydantic's, which it wraps, without the decoration."""
    details = getattr(error.__cause__, "errors", None)
    if details is None:
        return str(error) or type(error).__name__
    found = [(".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in details()]
    return "; ".join(f"{loc}: {message}" if loc else message for loc, message in found)


def _is_rgb(image: np.ndarray) -> bool:
    return image.dtype == "uint8" and image.ndim == 3 and image.shape[2] == 3


def _shape(image: np.ndarray) -> str:
    return "×".join(map(str, image.shape))
