"""The `coco` dataset."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ftengine.errors import DataError
from ftengine.protocols import DatasetContext
from ftengine_datasets.annotation_options import CocoOptions
from ftengine_datasets.coco import coco


def annotation(number, image, category, box, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, **more}


@pytest.fixture
def content():
    """Images 3 (40×30, two boxes), 20 (40×30, none) and 7 (16×12, one box); category ids 2, 5 and 90."""
    return {
        "images": [
            {"id": 20, "file_name": "c.png", "width": 40, "height": 30},
            {"id": 3, "file_name": "deep/a.png", "width": 40, "height": 30},
            {"id": 7, "file_name": "b.png", "width": 16, "height": 12},
        ],
        "annotations": [
            annotation(11, 7, 5, [0, 0, 16, 12]),
            annotation(12, 3, 90, [1.5, 2, 10, 20.25], area=100.5, iscrowd=0, segmentation=[[1, 2, 3, 4, 5, 6]]),
            annotation(5, 3, 2, [30, 0, 10, 30], area=7, iscrowd=1, segmentation={"counts": [3], "size": [30, 40]}),
        ],
        "categories": [{"id": 90, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 5, "name": "ant"}],
    }


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "data"
    for name, size in (("deep/a.png", (40, 30)), ("b.png", (16, 12)), ("c.png", (40, 30))):
        path = root / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (size[0], 0, 0)).save(path)
    return root


def load(root, content, split="train", **options):
    (root / "train.json").write_text(content if isinstance(content, str) else json.dumps(content))
    where = {"images": "train", "annotations": "train.json"}
    return coco(CocoOptions(root=root, **{"train": where, split: where, **options}), DatasetContext(split=split))


def fails(root, content, message, **options):
    with pytest.raises(DataError, match=message) as caught:
        load(root, content, **options)
    return str(caught.value)


def test_images_are_ordered_by_id_and_boxes_become_corners(root, content):
    data = load(root, content)
    assert len(data) == 3
    assert [data.sample_id(i) for i in range(3)] == ["train/deep/a.png", "train/b.png", "train/c.png"]
    assert [data.size(i) for i in range(3)] == [(30, 40), (12, 16), (30, 40)]
    assert data.names == {"boxes": ("dog", "ant", "cat")}
    assert data.ids == {"boxes": (2, 5, 90)}
    assert data.notes == ()
    target = data.target(0)
    np.testing.assert_array_equal(target["boxes"], [[1.5, 2, 11.5, 22.25], [30, 0, 40, 30]])
    np.testing.assert_array_equal(target["box_labels"], [2, 0])
    np.testing.assert_array_equal(target["box_crowd"], [False, True])
    np.testing.assert_array_equal(target["box_areas"], [100.5, 7])
    assert [target[name].dtype for name in target] == [np.float64, np.int64, bool, np.float64]
    np.testing.assert_array_equal(data.target(1)["box_areas"], [16 * 12])
    assert data.image(1).shape == (12, 16, 3)


def test_an_image_without_annotations_has_no_boxes(root, content):
    target = load(root, content).target(2)
    assert target["boxes"].shape == (0, 4)
    assert target["boxes"].dtype == np.float64
    assert [len(target[name]) for name in ("box_labels", "box_crowd", "box_areas")] == [0, 0, 0]


def test_no_annotations_at_all(root, content):
    data = load(root, {**content, "annotations": []})
    assert [len(data.target(i)["boxes"]) for i in range(3)] == [0, 0, 0]


def test_targets_may_be_written_to(root, content):
    data = load(root, content)
    for array in data.target(0).values():
        array[:] = 0
    assert data.target(0)["boxes"].any()
    assert data.target(0)["box_areas"].all()


def test_it_pickles(root, content):
    data = load(root, content)
    again = pickle.loads(pickle.dumps(data))
    assert (again.names, again.ids, again.size(0)) == (data.names, data.ids, data.size(0))
    np.testing.assert_array_equal(again[0].target["boxes"], data[0].target["boxes"])
    np.testing.assert_array_equal(again[0].image, data[0].image)


def test_classes_choose_categories_and_their_order(root, content):
    data = load(root, content, classes=["cat", "dog"])
    assert data.names == {"boxes": ("cat", "dog")}
    assert data.ids == {"boxes": (90, 2)}
    np.testing.assert_array_equal(data.target(0)["box_labels"], [0, 1])
    assert len(data.target(1)["boxes"]) == 0
    assert data.notes == ("train: 1 annotation of a category that is not in `classes` was left out (annotation 11)",)
    fails(root, content, r"unknown category 'cats'; did you mean 'cat'\? \(in `classes`\)", classes=["cats"])


def test_boxes_without_area_are_dropped_and_counted(root, content):
    content["annotations"] += [annotation(60, 7, 5, [3, 3, 0, 4]), annotation(61, 3, 5, [3, 3, 4, 0.0])]
    data = load(root, content, "val")
    assert [len(data.target(i)["boxes"]) for i in range(3)] == [2, 1, 0]
    assert data.notes == ("val: 2 boxes without area were dropped (annotation 60 (b.png), annotation 61 (deep/a.png))",)


def test_boxes_beyond_the_image_are_cut_off_and_counted(root, content):
    content["annotations"][0] = annotation(11, 7, 5, [-4, 6, 8, 60], area=480)
    data = load(root, content)
    np.testing.assert_array_equal(data.target(1)["boxes"], [[0, 6, 4, 12]])
    np.testing.assert_array_equal(data.target(1)["box_areas"], [24])
    assert data.notes == ("train: 1 box that reached beyond its image was cut off there (annotation 11 (b.png))",)


def test_rounding_beyond_the_edge_is_cut_off_without_a_note(root, content):
    content["annotations"][0]["bbox"] = [0.01, 0.01, 16, 12]
    data = load(root, content)
    np.testing.assert_array_equal(data.target(1)["boxes"], [[0.01, 0.01, 16, 12]])
    assert data.notes == ()


def test_areas_that_are_not_positive_become_the_boxes(root, content):
    content["annotations"][1]["area"] = 0
    data = load(root, content)
    assert data.target(0)["box_areas"][0] == 10 * 20.25
    assert data.notes == ("train: 1 object's area that was not above 0 became its box's (annotation 12 (deep/a.png))",)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([float("nan"), 0, 4, 4], r"annotation 70 \(b\.png\): box \(nan, 0, nan, 4\).* is not finite"),
        ([0, 0, float("inf"), 4], r"annotation 70 \(b\.png\): box .* is not finite"),
        ([5, 5, -3, 4], r"annotation 70 \(b\.png\): box \(5, 5, 2, 9\) as x1, y1, x2, y2 ends before it begins"),
        ([16, 0, 4, 4], r"annotation 70 \(b\.png\): box .* is outside of its image, 16×12 pixels"),
        ([0, -9, 4, 8], r"annotation 70 \(b\.png\): box .* is outside of its image"),
        ([1, 2, 3], r"annotations\[3\] \(id 70\): `bbox` is \[1, 2, 3\]; expected 4 numbers"),
        (["1", 2, 3, 4], r"annotations\[3\] \(id 70\): `bbox` is .*; expected 4 numbers"),
        (None, r"annotations\[3\] \(id 70\): `bbox` is None"),
        ([10**400, 2, 3, 4], r"annotations\[3\] \(id 70\): .*too large"),
    ],
)
def test_boxes_that_nobody_can_repair_are_named(root, content, box, message):
    content["annotations"].append(annotation(70, 7, 5, box))
    fails(root, content, rf"^train: .*train\.json: 1 problem:\n  {message}")


def test_a_category_missing_from_the_list(root, content):
    content["annotations"][2]["category_id"] = 3
    fails(root, content, r"annotation 5: category_id 3 is not in the list `categories` \(2, 5, 90\)")


def test_an_annotation_whose_image_is_missing_from_the_list(root, content):
    content["annotations"][0]["image_id"] = 8
    fails(root, content, r"1 problem:\n  annotation 11: image_id 8 is not in the list `images`$")


def test_an_image_that_is_missing_on_disk(root, content):
    (root / "train" / "b.png").unlink()
    fails(root, content, r"1 problem:\n  image 7 \(b\.png\): cannot read image .*b\.png: no such file$")
    assert len(load(root, content, verify=False)) == 3


def test_an_image_with_two_records(root, content):
    content["images"].append({"id": 7, "file_name": "c.png", "width": 40, "height": 30})
    text = fails(root, content, r"image 7 has two records \(b\.png, c\.png\)")
    assert "image 20 (c.png) has two records: image 7 is the same file" in text
    content["images"][-1] = {"id": 8, "file_name": "./deep/../b.png", "width": 16, "height": 12}
    fails(root, content, r"image 8 \(\./deep/\.\./b\.png\) has two records: image 7 is the same file$")


def test_an_annotation_id_that_occurs_twice(root, content):
    content["annotations"][1]["id"] = 11
    fails(root, content, r"1 problem:\n  annotation 11: this id occurs more than once$")


def test_category_ids_and_names_that_occur_twice(root, content):
    content["categories"].append({"id": 91, "name": "cat"})
    fails(root, content, "categories 90 and 91 are both called 'cat'")
    content["categories"][-1] = {"id": 5, "name": "bee"}
    fails(root, content, "category id 5 is that of both 'bee' and 'ant'")


def test_a_size_that_is_not_the_images(root, content):
    content["images"][0].update(width=30, height=40)
    content["images"][2].update(width=17)
    text = fails(root, content, "2 problems")
    assert "image 7 (b.png): states 17×12 pixels (width × height), but its image has 16×12" in text
    assert "image 20 (c.png): states 30×40 pixels (width × height), but its image has 40×30; does the image" in text


def test_sizes_are_those_of_the_upright_image(root, content):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (12, 16)).save(root / "train" / "b.png", exif=exif)
    assert load(root, content).size(1) == (12, 16)
    content["images"][2].update(width=12, height=16)
    fails(root, content, r"states 12×16 .* but its image has 16×12; does the image have an EXIF orientation")


@pytest.mark.parametrize("verify", [True, False])
def test_a_size_that_is_not_stated_is_read(root, content, verify):
    del content["images"][2]["width"]
    content["images"][1]["height"] = None
    data = load(root, content, verify=verify)
    assert [data.size(i) for i in range(3)] == [(30, 40), (12, 16), (30, 40)]


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "deep/../../../data2/a.png"])
def test_paths_out_of_the_data_root_are_refused(root, content, name, verify):
    (root.parent / "secret.png").write_bytes((root / "train" / "c.png").read_bytes())
    content["images"][0]["file_name"] = name
    fails(root, content, f"image 20: file_name '{name}' points outside of the data root {root}$", verify=verify)


def test_what_is_no_file_name_is_refused(root, content):
    content["images"][0]["file_name"] = "a\0b"
    fails(root, content, r"image 20: file_name 'a\\x00b' is no file name$")
    content["images"][0]["file_name"] = ""
    fails(root, content, r"images\[0\] \(id 20\): `file_name` is ''; expected a text$")


def test_paths_within_the_data_root_may_go_up_or_be_absolute(root, content):
    (root / "other").mkdir()
    Image.new("RGB", (40, 30)).save(root / "other" / "x.png")
    content["images"][0]["file_name"] = "../other/x.png"
    assert load(root, content).sample_id(2) == "other/x.png"
    content["images"][0]["file_name"] = str(root / "other" / "x.png")
    assert load(root, content).sample_id(2) == "other/x.png"


def test_images_elsewhere_are_a_root_of_their_own(root, content, tmp_path):
    (root / "train.json").write_text(json.dumps(content))
    where = {"images": root / "train", "annotations": root / "train.json"}
    options = CocoOptions(root=tmp_path / "elsewhere", train=where)
    assert coco(options, DatasetContext("train")).sample_id(0) == "deep/a.png"
    content["images"][0]["file_name"] = "../train.json"
    (root / "train.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"points outside of the data root .*train"):
        coco(options, DatasetContext("train"))


def test_links_below_the_data_root_are_followed(root, content, tmp_path):
    os.rename(root / "train" / "deep", tmp_path / "disk")
    os.symlink(tmp_path / "disk", root / "train" / "deep")
    assert load(root, content)[0].image.shape == (30, 40, 3)


def test_malformed_entries_are_named(root, content):
    del content["annotations"][0]["image_id"]
    content["annotations"][1]["category_id"] = "90"
    content["annotations"].append("x")
    content["images"].append({"id": 9.5, "file_name": "c.png"})
    content["categories"].append({"id": 100})
    text = fails(root, content, "5 problems")
    assert "annotations[0] (id 11): has no `image_id`" in text
    assert "annotations[1] (id 12): `category_id` is '90'; expected a whole number" in text
    assert "annotations[3]: " in text
    assert "images[3] (id 9.5): `id` is 9.5; expected a whole number" in text
    assert "categories[3] (id 100): has no `name`" in text


def test_ten_problems_are_shown_and_the_others_counted(root, content):
    content["annotations"] += [annotation(100 + i, 7, 5, [50, 50, 4, 4]) for i in range(25)]
    lines = fails(root, content, "25 problems").splitlines()
    assert len(lines) == 12
    assert lines[1].startswith("  annotation 100 ")
    assert lines[-1] == "  … and 15 others"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [],\n "annotations": [}', r"^train: .*train\.json:2: no JSON at column 18: "),
        ("", r"train\.json:1: no JSON at column 1"),
        ("[" * 100_000, "is not a JSON file"),
        ("[]", r"holds a list \(of results\?\); expected an object with the lists images, annotations, categories"),
        ('{"images": [1], "categories": {}}', "has no list annotations, categories; it has categories, images"),
        ('{"images": [], "annotations": [], "categories": [1]}', "lists no images"),
        ('{"images": [1], "annotations": [], "categories": []}', "lists no categories"),
    ],
)
def test_files_of_another_kind(root, text, message):
    fails(root, text, message)


def test_other_encodings_are_refused(root, content):
    (root / "latin.json").write_bytes(b'{"images": ["m\xfcde"]}')
    where = {"images": "train", "annotations": "latin.json"}
    fails(root, content, r"latin\.json is not a JSON file: .*utf-8", train=where)


def test_missing_files_name_the_nearest(root, content):
    fails(
        root,
        content,
        "^train: annotations: no file .*trian.json; did you mean .*train.json",
        train={
            "images": "train",
            "annotations": "trian.json",
        },
    )
    fails(
        root,
        content,
        "^train: images: no folder .*trains; did you mean",
        train={
            "images": "trains",
            "annotations": "train.json",
        },
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "train"),
        ({"train": "train.json"}, "CocoSplit"),
        ({"train": {"images": "a"}}, "annotations"),
        ({"train": {"images": "a", "annotations": "b", "masks": "c"}}, "masks"),
        ({"train": {"images": "a", "annotations": "b"}, "classes": ["x", "x"]}, "names a class twice"),
        ({"train": {"images": "a", "annotations": "b"}, "classes": []}, "at least 1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValidationError, match=message):
        CocoOptions(**options)
