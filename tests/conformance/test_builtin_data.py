"""The built-in datasets, and the metrics and tasks that come with them, pass the conformance kit."""

import json
from typing import ClassVar

import numpy as np
import pytest
import yaml
from PIL import Image

from ftengine.testing import PluginConformance

SIZES = ((40, 32), (32, 40), (36, 36), (48, 33))
"""(width, height) of images, in turn."""

COUNTS = {"train": 8, "val": 4}
CLASSES = ("ant", "bee")
VALUES = {"background": 0, "ant": 3, "bee": 7}
IGNORED = 255


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory):
    """The same few images in every format, each in a folder of its name in the current one."""
    folder = tmp_path_factory.mktemp("data")
    names = {split: [f"{split}{place}" for place in range(count)] for split, count in COUNTS.items()}
    boxes = {name: _box(name) for own in names.values() for name in own}
    for split, own in names.items():
        for name in own:
            _image(name, folder / "folder" / split / boxes[name][0] / f"{name}.png")
            _image(name, folder / "csv" / f"{name}.png")
            _image(name, folder / "coco" / split / f"{name}.png")
            _image(name, folder / "voc" / "JPEGImages" / f"{name}.png")
            _image(name, folder / "yolo" / "images" / split / f"{name}.png")
            _image(name, folder / "masks" / split / "images" / f"{name}.png")
            _mask(name, folder / "masks" / split / "masks" / f"{name}.png")
        _csv(own, folder / "csv" / f"{split}.csv")
        _coco(own, folder / "coco" / f"{split}.json")
        _voc(own, split, folder / "voc")
        _yolo(own, folder / "yolo" / "labels" / split)
    data = {"names": list(CLASSES), "train": "images/train", "val": "images/val"}
    (folder / "yolo" / "data.yaml").write_text(yaml.safe_dump(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


class Chosen(PluginConformance):
    """The kit for the components of some kinds; whole runs with each of them are slow."""

    kinds = ("task", "metric")

    def marks(self, subject, check):
        return [pytest.mark.slow] if check.run.__module__ == "ftengine.testing.runs" else []


class TestDatasets(Chosen):
    plugin = "datasets"
    kinds = ("dataset",)
    configs: ClassVar = {
        "folder": {"data": {"root": "folder", "train": "train", "val": "val"}},
        "csv": {
            "data": {
                "root": "csv",
                "train": "train.csv",
                "val": "val.csv",
                "label": "kind",
                "labels": "tags",
                "targets": ["length", "weight"],
            }
        },
        "coco": {
            "data": {
                "root": "coco",
                "train": {"images": "train", "annotations": "train.json"},
                "val": {"images": "val", "annotations": "val.json"},
            }
        },
        "voc": {"data": {"root": "voc", "train": "train", "val": "val"}},
        "yolo": {"data": {"root": "yolo"}},
        "masks": {
            "data": {"root": "masks", "train": "train", "val": "val", "classes": VALUES, "ignore": IGNORED},
        },
    }


class TestScenes(Chosen):
    plugin = "digits"
    kinds = ("dataset",)
    config: ClassVar = {"data": {"scenes": {"count": 24, "size": 64, "digits": [0, 3]}}}


class TestTags(Chosen):
    """A CSV file with columns of 0 and 1."""

    plugin = "csv"
    kinds = ("dataset",)
    config: ClassVar = {"data": {"root": "csv", "train": "train.csv", "labels": ["winged", "striped"]}}


class TestClassification(Chosen):
    plugin = "classification"
    configs: ClassVar = {
        "precision": {"metrics": [{"name": "precision", "average": "micro", "per_class": True}]},
        "recall": {"metrics": [{"name": "recall", "average": "weighted"}]},
        "metric auroc of classification from labels": {"metrics": [{"name": "auroc", "per_class": True}]},
    }


class TestRegression(Chosen):
    plugin = "regression"
    config: ClassVar = {"data": {"targets": ["value", "ink"]}}
    configs: ClassVar = {
        # A share of the true value needs values that are not 0.
        "mape": {"data": {"scenes": {"count": 24, "size": 64, "digits": [1, 4]}, "targets": ["count"]}},
    }


class TestDetection(Chosen):
    plugin = "detection"


class TestSegmentation(Chosen):
    plugin = "segmentation"


class TestIgnoredPixels(Chosen):
    plugin = "segmentation"
    kinds = ("metric",)
    config: ClassVar = {"data": {**TestDatasets.configs["masks"]["data"], "format": "masks"}}


def _place(name):
    return int(name.lstrip("trainvl"))


def _size(name):
    return SIZES[_place(name) % len(SIZES)]


def _box(name):
    """Class and x1 y1 x2 y2 of the one thing in an image; every fourth image has it at its edge."""
    width, height = _size(name)
    left, top = (0, 0) if _place(name) % 4 == 3 else (5 + _place(name) % 3, 7)
    return CLASSES[_place(name) % 2], (left, top, width - 10, height - 8)


def _image(name, path):
    width, height = _size(name)
    kind, (left, top, right, bottom) = _box(name)
    pixels = np.random.default_rng(_place(name)).integers(0, 60, (height, width, 3)).astype(np.uint8)
    pixels[top:bottom, left:right, CLASSES.index(kind)] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _mask(name, path):
    width, height = _size(name)
    kind, (left, top, right, bottom) = _box(name)
    values = np.zeros((height, width), np.uint8)
    values[top:bottom, left:right] = VALUES[kind]
    values[:, -2:] = IGNORED
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def _csv(names, path):
    rows = ["image,kind,tags,length,weight,winged,striped"]
    for name in names:
        kind, (left, top, right, bottom) = _box(name)
        tags = "winged;striped" if kind == "bee" else "winged" if _place(name) % 4 else ""
        bits = f"{int('winged' in tags)},{int('striped' in tags)}"
        rows.append(f"{name}.png,{kind},{tags},{right - left},{(bottom - top) / 4},{bits}")
    path.write_text("\n".join(rows) + "\n")


def _coco(names, path):
    images = [
        {"id": 10 + place, "file_name": f"{name}.png", "width": _size(name)[0], "height": _size(name)[1]}
        for place, name in enumerate(names)
    ]
    annotations = []
    for place, name in enumerate(names):
        kind, (left, top, right, bottom) = _box(name)
        box = [left, top, right - left, bottom - top]
        row = {"id": place + 1, "image_id": 10 + place, "category_id": 5 * CLASSES.index(kind) + 1, "bbox": box}
        if place != 2:  # which has nothing in it
            annotations.append(row | {"area": box[2] * box[3] * 0.8, "iscrowd": int(place == 5)})
    categories = [{"id": 5 * place + 1, "name": kind} for place, kind in enumerate(CLASSES)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def _voc(names, split, folder):
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    for name in names:
        kind, (left, top, right, bottom) = _box(name)
        width, height = _size(name)
        edges = {"xmin": left + 1, "ymin": top + 1, "xmax": right, "ymax": bottom}
        box = "".join(f"<{edge}>{value}</{edge}>" for edge, value in edges.items())
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        thing = (
            f"<object><name>{kind}</name><difficult>{int(_place(name) == 1)}</difficult><bndbox>{box}</bndbox></object>"
        )
        text = f"<annotation><filename>{name}.png</filename>{size}{thing}</annotation>"
        (folder / "Annotations" / f"{name}.xml").write_text(text)
    (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")


def _yolo(names, folder):
    folder.mkdir(parents=True)
    for name in names:
        kind, (left, top, right, bottom) = _box(name)
        width, height = _size(name)
        numbers = (
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
        )
        text = " ".join(map(str, (CLASSES.index(kind), *numbers)))
        (folder / f"{name}.txt").write_text("" if _place(name) == 2 else text + "\n")
