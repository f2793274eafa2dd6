"""The `yolo` dataset."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import yaml
from PIL import Image

from ftengine.errors import DataError
from ftengine.protocols import DatasetContext
from ftengine_datasets.annotation_options import YoloOptions
from ftengine_datasets.yolo import yolo


class Folder:
    """images/train: a (two boxes), b (none: empty), deep/c (40×20, one); images/val: d."""

    def __init__(self, path):
        self.path = path
        self.yaml(names=["ant", "bee"], train="images/train", val="images/val")
        for name, size in (
            ("train/a", (20, 10)),
            ("train/b", (20, 10)),
            ("train/deep/c", (40, 20)),
            ("val/d", (20, 10)),
        ):
            self.image(f"images/{name}.png", size)
        self.labels("train/a", "1 0.5 0.5 0.5 0.4\n\n0 0.25 0.5 0.5 1.0\n")
        self.labels("train/b", "")
        self.labels("train/deep/c", "1 0.5 0.5 1 1")
        self.labels("val/d", "0 0.5 0.5 0.1 0.1")

    def yaml(self, **content):
        self.path.mkdir(exist_ok=True)
        (self.path / "data.yaml").write_text(yaml.safe_dump(content))

    def image(self, name, size=(20, 10), **options):
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (size[0], 0, 0)).save(self.path / name, **options)

    def labels(self, name, text, folder="labels"):
        path = self.path / folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def load(self, split="train", **options):
        return yolo(YoloOptions(root=self.path, **options), DatasetContext(split=split))

    def fails(self, message, split="train", **options):
        with pytest.raises(DataError, match=message) as caught:
            self.load(split, **options)
        return str(caught.value)


@pytest.fixture
def data(tmp_path):
    return Folder(tmp_path / "data")


def ids(loaded):
    return [loaded.sample_id(i) for i in range(len(loaded))]


def test_fractions_become_corners_in_pixels(data):
    loaded = data.load()
    assert ids(loaded) == ["images/train/a.png", "images/train/b.png", "images/train/deep/c.png"]
    assert [loaded.size(i) for i in range(3)] == [(10, 20), (10, 20), (20, 40)]
    assert loaded.names == {"boxes": ("ant", "bee")}
    assert loaded.ids == {"boxes": (0, 1)}
    assert loaded.notes == ()
    target = loaded.target(0)
    np.testing.assert_allclose(target["boxes"], [[5, 3, 15, 7], [0, 0, 10, 10]], rtol=1e-12)
    np.testing.assert_array_equal(target["box_labels"], [1, 0])
    np.testing.assert_array_equal(target["box_crowd"], [False, False])
    np.testing.assert_allclose(target["box_areas"], [40, 100], rtol=1e-12)
    assert loaded.target(1)["boxes"].shape == (0, 4)
    np.testing.assert_array_equal(loaded.target(2)["boxes"], [[0, 0, 40, 20]])
    assert loaded.image(2).shape == (20, 40, 3)


def test_splits_by_their_keys(data):
    assert ids(data.load("val")) == ["images/val/d.png"]
    data.yaml(names=["ant", "bee"], train="images/train", validation=["images/val"])
    assert ids(data.load("val", val="validation")) == ["images/val/d.png"]
    assert ids(data.load("val", val="images/val")) == ["images/val/d.png"]
    text = data.fails(r"^val: .*data\.yaml has no 'val', and there is no .*/val; it has", "val")
    assert text.endswith("it has names, train, validation; `val: null` holds the split out of `train`")


def test_it_pickles(data):
    loaded = data.load()
    again = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_array_equal(again[0].target["boxes"], loaded[0].target["boxes"])
    np.testing.assert_array_equal(again[2].image, loaded[2].image)


def test_sizes_are_those_of_the_upright_image(data):
    exif = Image.Exif()
    exif[0x0112] = 6
    data.image("images/train/a.png", (20, 10), exif=exif)
    loaded = data.load()
    assert loaded.size(0) == loaded.image(0).shape[:2] == (20, 10)
    np.testing.assert_allclose(loaded.target(0)["boxes"][0], [2.5, 6, 7.5, 14], rtol=1e-12)


def test_images_without_label_file_are_counted(data):
    (data.path / "labels/train/b.txt").unlink()
    loaded = data.load()
    assert len(loaded.target(1)["boxes"]) == 0
    assert loaded.notes == ("train: 1 image without label file has no objects (images/train/b.png)",)


def test_no_label_file_at_all(data):
    (data.path / "labels").rename(data.path / "lables")
    data.fails(r"none of its images has a label file; expected, for instance, .*/labels/train/a\.txt")


def test_labels_beside_the_images(data):
    data.yaml(names=["ant"], train="photos", val="photos")
    data.image("photos/a.png")
    data.labels("a", "0 0.5 0.5 1 1", folder="photos")
    data.labels("README", "no labels", folder="photos")
    np.testing.assert_array_equal(data.load().target(0)["boxes"], [[0, 0, 20, 10]])


def test_a_folder_called_images_in_each_split(data):
    data.yaml(names=["ant"], train="fold/images")
    data.image("fold/images/a.png")
    data.labels("a", "0 0.5 0.5 1 1", folder="fold/labels")
    assert len(data.load().target(0)["boxes"]) == 1


def test_names_may_be_a_mapping_with_gaps(data):
    data.yaml(names={7: "bee", 0: "ant"}, train="images/train")
    data.labels("train/a", "7 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5")
    data.labels("train/deep/c", "")
    loaded = data.load()
    assert loaded.names == {"boxes": ("ant", "bee")}
    assert loaded.ids == {"boxes": (0, 7)}
    np.testing.assert_array_equal(loaded.target(0)["box_labels"], [1, 0])
    data.labels("train/a", "1 0.5 0.5 0.5 0.5")
    data.fails(r"1 problem:\n  labels/train/a\.txt:1: class 1 is not in `names` \(0, 7\)$")


def test_numbers_are_names_but_switches_are_not(data):
    data.yaml(names=[0, 1.5], train="images/train")
    assert data.load().names == {"boxes": ("0", "1.5")}
    data.yaml(names=["yes", True], train="images/train")
    data.fails("class 1 is called True; write it in quotes")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "`names` must be a list"),
        ({"names": []}, "`names` must be a list"),
        ({"names": {"a": 1}}, "`names` must be a list"),
        ({"names": ["a", "a"]}, "`names` has a name twice"),
        ({"names": ["a", "b"], "nc": 3}, "`nc` is 3, but `names` has 2"),
    ],
)
def test_bad_names(data, content, message):
    data.yaml(train="images/train", **content)
    data.fails(message)


def test_outlines_become_the_boxes_around_them(data):
    data.labels("train/a", "1 0.1 0.2 0.5 0.2 0.5 0.8 0.1 0.8\n0 0 0 1 0 0 1")
    loaded = data.load()
    np.testing.assert_allclose(loaded.target(0)["boxes"], [[2, 2, 10, 8], [0, 0, 20, 10]], rtol=1e-12)
    np.testing.assert_allclose(loaded.target(0)["box_areas"], [48, 100], rtol=1e-12)
    assert loaded.notes == (
        "train: 2 outlines were taken as the boxes around them (labels/train/a.txt:1, labels/train/a.txt:2)",
    )


def test_boxes_without_area_are_dropped_and_counted(data):
    data.labels("train/a", "1 0.5 0.5 0 0.4\n0 0.5 0.5 0.5 0.4")
    loaded = data.load()
    np.testing.assert_array_equal(loaded.target(0)["box_labels"], [0])
    assert loaded.notes == ("train: 1 box without area was dropped (labels/train/a.txt:1)",)


def test_boxes_beyond_the_image_are_cut_off_and_counted(data):
    data.labels("train/a", "1 0.9 0.5 0.4 1.000001")
    loaded = data.load()
    np.testing.assert_allclose(loaded.target(0)["boxes"], [[14, 0, 20, 10]], rtol=1e-12)
    assert loaded.notes == ("train: 1 box that reached beyond its image was cut off there (labels/train/a.txt:1)",)
    data.labels("train/a", "1 0.5 0.5 1.000001 1.000001")
    assert data.load().notes == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0.5 0.5 nan 0.4", "nan is not a fraction of the image's size"),
        ("1 0.5 inf 0.2 0.4", "inf is not a fraction"),
        ("1 120 80 40 40", "120 is not a fraction"),
        ("1 0.5 0.5 -0.2 0.4", r"box .* ends before it begins"),
        ("1 1.5 0.5 0.2 0.4", r"box .* is outside of its image, 20×10 pixels"),
        ("1 0.5 0.5 0.2", "has 4 numbers; expected class cx cy w h"),
        ("1 0.5 0.5 0.2 0.4 0.9", "has 6 numbers"),
        ("2 0.5 0.5 0.2 0.4", r"class 2 is not in `names` \(0, 1\)"),
        ("0.5 0.5 0.5 0.2 0.4", "class 0.5 is not in `names`"),
        ("bee 0.5 0.5 0.2 0.4", "'bee' is not a number"),
    ],
)
def test_lines_that_nobody_can_repair_are_named(data, line, message):
    data.labels("train/a", f"1 0.5 0.5 0.2 0.4\n{line}\n")
    data.fails(rf"^train: .*data\.yaml: 1 problem:\n  labels/train/a\.txt:2: .*{message}")


def test_labels_whose_image_is_missing(data):
    data.labels("train/deep/x", "0 0.5 0.5 0.1 0.1")
    data.labels("train/classes", "ant\nbee")
    data.labels("val/y", "0 0.5 0.5 0.1 0.1")
    data.fails(r"1 problem:\n  labels/train/deep/x\.txt: its image is missing in .*images/train$")


def test_images_that_share_their_labels(data):
    data.image("images/train/a.jpg")
    data.fails(r"1 problem:\n  images/train/a\.jpg and images/train/a\.png share the labels a\.txt$")


def test_images_that_cannot_be_read(data):
    (data.path / "images/train/a.png").write_bytes(b"")
    data.fails(r"1 problem:\n  images/train/a\.png: cannot read image .*a\.png: the file is empty$")


def test_lists_of_images(data):
    data.yaml(names=["ant", "bee"], train=["list.txt", "images/val"])
    absolute = data.path / "images" / "train" / "b.png"
    (data.path / "list.txt").write_text(f"./images/train/deep/c.png\n\n{absolute}\nimages/train/b.png\n")
    loaded = data.load()
    assert ids(loaded) == ["images/train/deep/c.png", "images/train/b.png", "images/val/d.png"]
    assert loaded.notes == ("train: 1 image that is listed twice was taken once (b.png)",)
    (data.path / "list.txt").write_text("images/train/a.png\n../x.png\n/etc/x.png\nimages/nothing.png\n")
    text = data.fails("2 problems")
    assert "list.txt:2: '../x.png' points outside of the data root" in text
    assert "list.txt:3: '/etc/x.png' points outside of the data root" in text
    (data.path / "list.txt").write_text("images/train/a.png\nimages/nothing.png\n")
    data.fails(r"images/nothing\.png: cannot read image .*: no such file")


def test_the_path_in_the_file(data):
    data.yaml(names=["ant", "bee"], path="images", train="train")
    assert len(data.load()) == 3
    data.yaml(names=["ant", "bee"], path=str(data.path), train="images/train")
    assert len(data.load()) == 3
    data.yaml(names=["ant", "bee"], path="nothing", train="images/train")
    data.fails(r"^train: .*data\.yaml: path: no folder .*nothing")


@pytest.mark.parametrize("path", ["/home/somebody/data", "../elsewhere"])
def test_a_path_out_of_the_data_root_is_refused(data, path):
    data.yaml(names=["ant", "bee"], path=path, train="images/train")
    text = data.fails(rf"^train: .*data\.yaml: '{path}' points outside of the data root")
    assert text.endswith("`root` in the config may be set to another folder")


def test_splits_out_of_the_data_root_are_refused(data):
    (data.path.parent / "elsewhere").mkdir()
    data.yaml(names=["ant", "bee"], train="../elsewhere", val="/etc")
    data.fails(r"^train: .*'\.\./elsewhere' points outside of the data root")
    data.fails(r"^val: .*'/etc' points outside of the data root", "val")


def test_exports_that_say_one_folder_up_too_much(data):
    data.yaml(names=["ant", "bee"], train="../images/train")
    loaded = data.load()
    assert len(loaded) == 3
    assert loaded.notes == (
        f"train: data.yaml says '../images/train', outside of the data root; {data.path}/images/train was read",
    )


def test_a_file_in_a_subfolder_starts_from_there(data):
    (data.path / "data.yaml").rename(data.path / "images" / "own.yaml")
    (data.path / "images" / "own.yaml").write_text("names: [ant, bee]\ntrain: train\n")
    assert len(data.load(file="images/own.yaml")) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a\ntrain: x", r"^train: .*data\.yaml:2 is not YAML"),
        ("- a", "holds no mapping"),
        ("names: [a]\ntrain:", "'train' is None; expected a path or a list of paths"),
        ("names: [a]\ntrain: [1]", r"'train' is \[1\]"),
        ("names: [a]\ntrain: imgs", "train: no folder .*imgs"),
        ("names: [a]\ntrain: labels", "holds no images"),
    ],
)
def test_malformed_files(data, text, message):
    (data.path / "data.yaml").write_text(text)
    data.fails(message)


def test_missing_file(data):
    data.fails(r"^train: no file .*dataset\.yaml", file="dataset.yaml")
