"""The files that docs/config.md shows for each data format are read as it says; scripts of other pages run."""

import json
import re

import numpy as np
import pytest
import yaml
from doc_pages import ROOT, blocks, text
from PIL import Image

from ftengine.build import make_dataset
from ftengine.document import read
from ftengine.resolve import resolve

CONFIG = ROOT / "docs" / "config.md"
SHOWN = re.compile(r"^`([\w./]+)`(?:, for `([\w./]+)`)?:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BOX = [[10, 20, 110, 70]]


def section(name):
    """The part of the page under the heading of a data format."""
    return text(CONFIG).partition(f"### `{name}`\n")[2].partition("\n### ")[0]


def split_of(name, split, root, tmp_path):
    """A split of the dataset that the section's config describes, with its files below `root`."""
    part = yaml.safe_load(next(config for config in blocks(CONFIG, "yaml") if f"format: {name}" in config))
    part["data"]["root"] = str(root)
    file = tmp_path / "shown.yaml"
    file.write_text(yaml.safe_dump({**part, "backbone": "resnet18"}))
    plan = resolve(read(file))
    (stream,) = plan.streams
    return make_dataset(plan, stream, split)


def picture(path, width=640, height=480):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)


@pytest.fixture
def files(tmp_path):
    """Writes what a section shows, and the images that belong to it."""

    def write(name, *pictures):
        for path, _, content in SHOWN.findall(section(name)):
            file = tmp_path / "data" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        for path in pictures:
            picture(tmp_path / "data" / path)
        return tmp_path / "data"

    return write


def test_the_coco_file(files, tmp_path):
    data = split_of("coco", "train", files("coco", "train/0001.png"), tmp_path)
    assert data.names["boxes"] == ("cell",)
    assert data.ids["boxes"] == (3,)
    assert (data.target(0)["boxes"].tolist(), data.notes) == (BOX, ())


def test_the_voc_file(files, tmp_path):
    root = files("voc", "JPEGImages/0001.png")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("0001\n")
    data = split_of("voc", "train", root, tmp_path)
    assert data.names["boxes"] == ("cell",)
    assert (data.target(0)["boxes"].tolist(), data.notes) == (BOX, ())


def test_the_yolo_files(files, tmp_path):
    data = split_of("yolo", "train", files("yolo", "images/train/0001.png"), tmp_path)
    assert data.names["boxes"] == ("cell", "platelet")
    assert data.target(0)["boxes"] == pytest.approx(np.array(BOX), abs=0.5)
    assert data.notes == ()


def test_the_mask_folders(tmp_path):
    root = tmp_path / "data"
    for folder in ("train/images", "val"):
        picture(root / folder / "1.jpg", 8, 6)
    for folder in ("train/masks", "valannot"):
        (root / folder).mkdir(parents=True)
        Image.fromarray(np.array([[0, 1, 2, 11]] * 6, np.uint8).repeat(2, axis=1)).save(root / folder / "1.png")
    for split in ("train", "val"):
        data = split_of("masks", split, root, tmp_path)
        assert data.names["mask"] == ("sky", "building", "road")
        assert np.unique(data.mask(0)).tolist() == [0, 1, 2, 255]


def test_the_script_that_measures_detections(tmp_path, monkeypatch, capsys):
    (script,) = blocks(ROOT / "docs" / "detection.md", "python")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "blood").mkdir(parents=True)
    box = {"image_id": 7, "category_id": 3, "bbox": [10, 20, 100, 50]}
    truth = {
        "images": [{"id": 7, "file_name": "0001.png"}],
        "annotations": [{**box, "id": 1, "area": 5000, "iscrowd": 0}],
        "categories": [{"id": 3, "name": "cell"}],
    }
    (tmp_path / "data" / "blood" / "val.json").write_text(json.dumps(truth))
    (tmp_path / "answers.json").write_text(json.dumps([{**box, "score": 0.9, "file_name": "0001.png"}]))
    exec(script, {})
    assert "Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 1.000" in capsys.readouterr().out


def test_the_script_that_measures_masks(tmp_path, monkeypatch, capsys):
    (script,) = blocks(ROOT / "docs" / "segmentation.md", "python")
    monkeypatch.chdir(tmp_path)
    truth, predicted = np.array([[0, 0, 1, 1, 11]], np.uint8), np.array([[0, 1, 1, 1, 5]], np.uint8)
    for folder, mask in (("data/camvid/val/masks", truth), ("answers/segmentation", predicted)):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(mask).save(tmp_path / folder / "1.png")
    exec(script, {})
    assert float(capsys.readouterr().out.split()[1]) == pytest.approx((1 / 2 + 2 / 3) / 2)
