"""Augmentation by albumentations' class names, checked without importing it and random by seed alone.

A config lists transforms in order, each a class name or a mapping of ``name`` and options::

    augment:
      - HorizontalFlip
      - {name: Rotate, limit: 15, p: 0.8}
      - {name: OneOf, transforms: [GaussNoise, {name: MotionBlur, blur_limit: 5}]}

Importing albumentations imports torch, so `check` and `schema` read a table (:mod:`ftengine.augment_table`). What that
cannot express, for example that one option excludes another, the constructors tell in `build`, still before any
training.

Boxes and masks follow the image. Pixels that a transform brings in from beyond the image's edges are not learnt from:
the mask has 255 there, unless ``fill_mask`` says otherwise. Dropouts (CoarseDropout, GridDropout, …) leave the mask as
it is, unless ``fill_mask`` is given; they shrink a box to the smallest one around what is still to be seen of it, in
whole pixels, and drop one that is covered all over.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ftengine.augment_check import Entry, Problems, check, schema
from ftengine.augment_table import OWN_DEFAULTS, import_albumentations, table
from ftengine.errors import ConfigError, DataError, Problem

if TYPE_CHECKING:
    import numpy as np

    from ftengine.geometry import Scene

__all__ = ["Augment", "build", "check", "schema"]


class Augment:
    """A pipeline, called as ``augment(scene, seed)``. Pickles; not to be shared between threads."""

    def __init__(self, entries: Sequence[Entry], place: str, fields: Set[str], compose: Any) -> None:
        from numpy.random import PCG64, Generator  # here, since checking a config need not wait for NumPy either

        self._entries = list(entries)
        self._place = place
        self._fields = frozenset(fields)
        self._compose = compose
        # albumentations' set_random_seed would give each transform a generator of its own with the same seed: all
        # of them would draw the same numbers, so that two flips with p=0.5 happened both or not at all. One pair of
        # generators that all share is right, and three times as fast to seed.
        self._python = random.Random(0)
        self._numpy = Generator(PCG64(0))
        compose.set_random_state(self._numpy, self._python)

    def __call__(self, scene: Scene, seed: int) -> Scene:
        """Augments `scene`; the size of its image may change with crops and the like. All frames of a clip alike.

        Boxes are cut off at the edges of the image, and dropped where less than a pixel of their width or height is
        left: `kept` says which are still there. Where the image is mirrored at its edges, so are they, and a number
        may occur more than once.

        The result depends on `scene` and `seed` (≥ 0) only: not on the process, nor on earlier calls; `scene`
        itself stays as it is. Raises DataError, naming the entry, where a transform cannot take it.
        """
        self._reseed(seed)
        try:
            result = self._compose(**self._data(scene))
        except Exception as error:
            culprit, size = self._culprit(scene, seed), _shape(scene.image)
            raise DataError(f"{culprit} failed on an image of {size}: {error}") from error
        if broken := _broken(result):
            raise DataError(f"{self._culprit(scene, seed)} made {broken} of uint8 {_shape(scene.image)}")
        return self._scene(scene, result)

    def __reduce__(self) -> tuple[Any, ...]:
        return build, (self._entries, self._place, self._fields)

    def _reseed(self, seed: int) -> None:
        self._python.seed(seed)
        self._numpy.bit_generator.state = type(self._numpy.bit_generator)(seed).state

    def _data(self, scene: Scene) -> dict[str, Any]:
        """`scene` as albumentations takes it. Behind a box's coordinates stands its place among all of them."""
        import numpy as np

        data: dict[str, Any] = {"image" if scene.image.ndim == 3 else "images": scene.image}
        if scene.mask is not None:
            data["mask"] = scene.mask
        if scene.boxes is not None and "boxes" not in self._fields:
            raise ValueError("a scene with boxes, and augmentations that were built for data without")
        if "boxes" in self._fields:
            boxes = _inside(np.zeros((0, 4)) if scene.boxes is None else scene.boxes, scene.image)
            large = (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
            data["bboxes"] = np.column_stack([boxes, np.arange(len(boxes))])[large]
        return data

    def _scene(self, scene: Scene, result: Mapping[str, Any]) -> Scene:
        """What albumentations made of `scene`."""
        import numpy as np

        new = replace(scene, image=_contiguous(_image(result)))
        if scene.mask is not None:
            new = replace(new, mask=_contiguous(result["mask"]))
        if scene.boxes is not None:
            rows = np.asarray(result["bboxes"], np.float64)
            places = rows[:, 4].astype(np.int64) if len(rows) else np.zeros(0, np.int64)
            kept = places if scene.kept is None else scene.kept[places]
            new = replace(new, boxes=_inside(rows[:, :4], new.image), kept=kept)
        return new

    def _culprit(self, scene: Scene, seed: int) -> str:
        """The first entry that goes wrong: the same seed takes the same way again, one transform at a time."""
        self._reseed(seed)
        self._python.random()  # the pipeline's own draw
        data = self._data(scene)
        self._compose.preprocess(data)
        for i, transform in enumerate(self._compose.transforms):
            try:
                data = self._compose.check_data_post_transform(transform(**data))
                broken = bool(_broken(data))
            except Exception:
                broken = True
            if broken:
                return f"{self._place}[{i}]: {type(transform).__name__}"
        return self._place


def build(entries: Sequence[Entry], place: str = "augment", fields: Set[str] = frozenset()) -> Augment:
    """The pipeline of `entries`, as a config has them; `place` is their path in it, for errors.

    `fields` are what the data may have besides images (``boxes``, ``mask``); a scene may lack them all the same.
    Raises ConfigError with all that `check` or the transforms' constructors find wrong. OpenCV's own threads are
    switched off in this process: the loader's workers are the parallelism.
    """
    problems = check(entries, fields)
    if not problems:
        library = import_albumentations()
        transforms = [_make(library, entry, f"[{i}]", problems) for i, entry in enumerate(entries)]
    if problems:
        raise ConfigError([Problem(place + inner, message) for inner, message in problems])
    return Augment(entries, place, fields, _compose(library, transforms, fields))


def _compose(library: Any, transforms: list[Any], fields: Set[str]) -> Any:
    if "boxes" not in fields:
        return library.Compose(transforms)
    # With its defaults it raises on a box that rounding has put outside of the image. Some transforms count in float32.
    least = 1 - 1e-3
    boxes = library.BboxParams("pascal_voc", clip=True, filter_invalid_bboxes=True, min_width=least, min_height=least)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Got processor for bboxes, but no transform to process it")
        return library.Compose(transforms, bbox_params=boxes)


def _make(library: Any, entry: Entry, place: str, problems: Problems) -> Any:
    options = {} if isinstance(entry, str) else dict(entry)
    name = options.pop("name", entry)
    inner = options.pop("transforms", None)
    if inner is not None:
        made = [_make(library, one, f"{place}.transforms[{i}]", problems) for i, one in enumerate(inner)]
        if None in made:
            return None
        options["transforms"] = made
    for option, _ in OWN_DEFAULTS:
        default = table()[name]["options"].get(option, {}).get("default")
        if default is not None:
            options.setdefault(option, default)
    cls = getattr(library, name)
    if "InitSchema" in vars(cls):  # it validates its options
        options["strict"] = True  # or else it only warns of some mistakes, and takes its defaults
    try:
        made = cls(**options)
    except Exception as error:
        problems.append((place, f"{name}: {_reason(error)}"))
        return None
    if isinstance(made, library.augmentations.geometric.distortion.BaseDistortion):
        made.apply_to_bboxes = _distorted
        made._set_keys()  # it has looked its methods up already
    return made


def _distorted(boxes: np.ndarray, map_x: np.ndarray, map_y: np.ndarray, **params: Any) -> np.ndarray:
    """Boxes, in fractions of the image, around the pixels that show something of them.

    The centre of pixel [i, j] shows the image at (map_x[i, j], map_y[i, j]), counted from the centre of the first
    pixel. In albumentations' own version a box reaches a pixel too far before the distortion, which may stretch it to
    many, and one of which nothing is left to see stays where it was.
    """
    import numpy as np

    height, width = map_x.shape
    spans = [(map_x.min(0), map_x.max(0)), (map_y.min(1), map_y.max(1))]  # of each column, of each row
    found = []
    for row in boxes:
        left, top, right, bottom = row[:4] * [width, height, width, height] - 0.5
        # Only these columns and rows may show something of it.
        x = _span((spans[0][0] < right) & (spans[0][1] >= left))
        y = _span((spans[1][0] < bottom) & (spans[1][1] >= top))
        near_x, near_y = map_x[y, x], map_y[y, x]
        shown = (near_x >= left) & (near_x < right) & (near_y >= top) & (near_y < bottom)
        columns, rows = _span(shown.any(axis=0)), _span(shown.any(axis=1))
        if columns.stop:
            box = [x.start + columns.start, y.start + rows.start, x.start + columns.stop, y.start + rows.stop]
            found.append([*(np.array(box) / [width, height, width, height]), *row[4:]])
    return np.array(found).reshape(-1, boxes.shape[1])


def _span(true: np.ndarray) -> slice:
    """From the first to the last element of `true`, bool [N], that is true; ``slice(0, 0)`` if none is."""
    places = true.nonzero()[0]
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _reason(error: Exception) -> str:
    """A constructor's error in one line; pydantic's, which it wraps, without the decoration."""
    details = getattr(error.__cause__, "errors", None)
    if details is None:
        return str(error) or type(error).__name__
    found = [(".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in details()]
    return "; ".join(f"{loc}: {message}" if loc else message for loc, message in found)


def _broken(data: Mapping[str, Any]) -> str:
    """What is wrong with an image, or its mask, that a transform made; empty if nothing is."""
    image, mask = _image(data), data.get("mask")
    if image.dtype != "uint8" or image.ndim != (3 if "image" in data else 4) or image.shape[-1] != 3:
        return f"{image.dtype} {_shape(image)}"
    if mask is not None and (mask.dtype != "uint8" or mask.shape != image.shape[:2]):
        return f"a mask of {mask.dtype} {_shape(mask)} and an image of {_shape(image)}"
    return ""


def _image(data: Mapping[str, Any]) -> np.ndarray:
    """The image among albumentations' data, or the clip."""
    image: np.ndarray = data["image" if "image" in data else "images"]
    return image


def _inside(boxes: np.ndarray, image: np.ndarray) -> np.ndarray:
    """`boxes`, float64 [N, 4], cut off at the edges of `image`."""
    height, width = image.shape[:2]
    return boxes.clip(0, [width, height, width, height])


def _contiguous(array: np.ndarray) -> np.ndarray:
    return array if array.flags.c_contiguous else array.copy()


def _shape(image: np.ndarray) -> str:
    return "×".join(map(str, image.shape))
