"""Folders of images that say of themselves which they are, some of which cannot be read."""

import json

import numpy as np
from PIL import Image

CLASSES = ("a", "b", "c")
COUNTS = {"train": 50, "val": 20}
BAD = {"train": (3, 14, 22, 37, 48), "val": (5, 12)}
"""One in ten."""


def label(index):
    """The class of image `index`."""
    return index % len(CLASSES)


def name(index):
    return f"{index:03}.png"


def picture(index):
    """Uint8 [24, 24, 3]: red says the index, green the class."""
    return np.full((24, 24, 3), (4 * index, 80 * label(index), 0), np.uint8)


def index_of(image):
    """The index that an image, uint8 [H, W, 3] whatever its size, says it has."""
    reds = np.unique(image[..., 0])
    assert len(reds) == 1
    return int(reds[0]) // 4


def spoil(file, number):
    """Make a file unreadable in one of three ways; returns what is said of it."""
    content = file.read_bytes()
    if number % 3 == 0:
        file.write_bytes(b"")
        return "the file is empty"
    if number % 3 == 1:  # its header is whole
        file.write_bytes(content[:60])
        return "truncated"
    file.write_bytes(b"no image at all")
    return "not an image of a known format"


def write_split(root, split, *, spoiled=True):
    """``<split>/images``, ``<split>/masks``, ``<split>.csv``, ``<split>.json``, ``<split>-classes/<class>``.

    Returns index -> what is said of it, of those that are spoiled.
    """
    coco = {"images": [], "annotations": [], "categories": []}
    coco["categories"] = [{"id": number + 1, "name": text} for number, text in enumerate(CLASSES)]
    rows = ["image,number"]
    for folder in ("images", "masks"):
        (root / split / folder).mkdir(parents=True)
    for text in CLASSES:
        (root / f"{split}-classes" / text).mkdir(parents=True)
    for index in range(COUNTS[split]):
        image = Image.fromarray(picture(index))
        image.save(root / split / "images" / name(index))
        image.save(root / f"{split}-classes" / CLASSES[label(index)] / name(index))
        Image.fromarray(np.full((24, 24), label(index), np.uint8)).save(root / split / "masks" / name(index))
        rows.append(f"{split}/images/{name(index)},{index}")
        coco["images"].append({"id": index + 1, "file_name": name(index), "height": 24, "width": 24})
        box = {"bbox": [4, 4, 12, 12], "category_id": label(index) + 1}
        coco["annotations"].append({"id": index + 1, "image_id": index + 1, "iscrowd": 0, "area": 144, **box})
    (root / f"{split}.csv").write_text("\n".join(rows) + "\n")
    (root / f"{split}.json").write_text(json.dumps(coco))
    causes = {}
    for number, index in enumerate(BAD[split] if spoiled else ()):
        causes[index] = spoil(root / split / "images" / name(index), number)
        spoil(root / f"{split}-classes" / CLASSES[label(index)] / name(index), number)
    return causes


def files(root, *, spoiled=True):
    """Both splits in `root`; see `write_split`."""
    return {split: write_split(root, split, spoiled=spoiled) for split in COUNTS}


DATA = {
    "classification": {"format": "folder", "train": "train-classes", "val": "val-classes"},
    "regression": {"format": "csv", "train": "train.csv", "val": "val.csv", "targets": "number"},
    "detection": {
        "format": "coco",
        "train": {"images": "train/images", "annotations": "train.json"},
        "val": {"images": "val/images", "annotations": "val.json"},
    },
    "segmentation": {"format": "masks", "train": "train", "val": "val", "classes": list(CLASSES)},
}
"""Of each task, where its data are in `root`."""
