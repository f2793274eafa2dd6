"""The `voc` dataset."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ftengine.errors import DataError
from ftengine.protocols import DatasetContext
from ftengine_datasets.annotation_options import VocOptions
from ftengine_datasets.voc import voc


def thing(name, box, **more):
    edges = "".join(
        f"<{edge}>{value}</{edge}>" for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    others = "".join(f"<{key}>{value}</{key}>" for key, value in more.items())
    return f"<object><name>{name}</name>{others}<bndbox>{edges}</bndbox></object>"


def document(*objects, filename="", size=(40, 30)):
    stated = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    path = "<folder>x</folder><path>/home/somebody/elsewhere/x.jpg</path>"
    return f"<annotation>{path}<filename>{filename}</filename>{stated}{''.join(objects)}</annotation>"


class Folder:
    """A dataset in VOC's layout: b has two objects, a none, c.d (of 16×12) one."""

    def __init__(self, path):
        self.path = path
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (path / name).mkdir(parents=True)
        self.xml("b", document(thing("dog", [1, 1, 10, 20]), thing("cat", [31, 11, 40, 30], difficult=1)))
        self.xml("a", document())
        self.xml("c.d", document(thing("cat", ["2.5", 3, 16, 12], difficult=0), size=(16, 12), filename="c.d.png"))
        for name, size in (("b.jpg", (40, 30)), ("a.png", (40, 30)), ("c.d.png", (16, 12))):
            self.image(name, size)
        self.list("train", "b\na\n\nc.d\n")

    def xml(self, name, text):
        (self.path / "Annotations" / f"{name}.xml").write_text(text)

    def image(self, name, size=(40, 30), **options):
        Image.new("RGB", size, (size[0], 0, 0)).save(self.path / "JPEGImages" / name, **options)

    def list(self, name, text):
        (self.path / "ImageSets" / "Main" / f"{name}.txt").write_text(text)

    def load(self, split="train", **options):
        return voc(VocOptions(root=self.path, **options), DatasetContext(split=split))

    def fails(self, message, **options):
        with pytest.raises(DataError, match=message) as caught:
            self.load(**options)
        return str(caught.value)


@pytest.fixture
def data(tmp_path):
    return Folder(tmp_path / "data")


def test_boxes_lose_one_at_their_upper_left(data):
    loaded = data.load()
    assert len(loaded) == 3
    assert [loaded.sample_id(i) for i in range(3)] == ["JPEGImages/b.jpg", "JPEGImages/a.png", "JPEGImages/c.d.png"]
    assert [loaded.size(i) for i in range(3)] == [(30, 40), (30, 40), (12, 16)]
    assert loaded.names == {"boxes": ("cat", "dog")}
    assert loaded.ids == {}
    target = loaded.target(0)
    np.testing.assert_array_equal(target["boxes"], [[0, 0, 10, 20], [30, 10, 40, 30]])
    np.testing.assert_array_equal(target["box_labels"], [1, 0])
    np.testing.assert_array_equal(target["box_areas"], [200, 200])
    assert loaded.target(1)["boxes"].shape == (0, 4)
    np.testing.assert_array_equal(loaded.target(2)["boxes"], [[1.5, 2, 16, 12]])
    assert loaded.image(2).shape == (12, 16, 3)


def test_boxes_may_be_taken_as_they_are(data):
    np.testing.assert_array_equal(data.load(one_based=False).target(2)["boxes"], [[2.5, 3, 16, 12]])


def test_it_pickles(data):
    loaded = data.load()
    again = pickle.loads(pickle.dumps(loaded))
    assert (again.names, again.notes) == (loaded.names, loaded.notes)
    np.testing.assert_array_equal(again[0].target["boxes"], loaded[0].target["boxes"])


def test_difficult_objects(data):
    loaded = data.load()
    np.testing.assert_array_equal(loaded.target(0)["box_crowd"], [False, True])
    assert loaded.notes == ("train: 1 object marked as difficult is neither learnt nor measured",)
    loaded = data.load(difficult="keep")
    np.testing.assert_array_equal(loaded.target(0)["box_crowd"], [False, False])
    assert loaded.notes == ("train: 1 object marked as difficult is taken as any other",)
    loaded = data.load(difficult="drop")
    np.testing.assert_array_equal(loaded.target(0)["box_labels"], [1])
    assert loaded.notes == ("train: 1 object marked as difficult is left out",)


def test_parts_of_objects_are_not_objects(data):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></part>"
    text = document(thing("dog", [1, 1, 10, 20])).replace("</object>", f"{part}</object>")
    data.xml("b", text.replace("<name>dog</name>", "").replace("</part>", "</part><name>dog</name>"))
    loaded = data.load()
    assert loaded.names == {"boxes": ("cat", "dog")}
    np.testing.assert_array_equal(loaded.target(0)["boxes"], [[0, 0, 10, 20]])


def test_sets_by_name_and_by_path(data):
    data.list("few", "a\nb\n")
    assert len(data.load(train="few")) == 2
    assert len(data.load(train="ImageSets/Main/few.txt")) == 2
    assert len(data.load("val", val=str(data.path / "ImageSets" / "Main" / "few.txt"))) == 2
    data.fails(r"^train: no file .*/trian\.txt; did you mean .*/train\.txt\?", train="trian")


def test_repeated_lines_are_taken_once(data):
    data.list("train", "b\na\nb\n")
    loaded = data.load()
    assert len(loaded) == 2
    assert loaded.notes[0] == "train: 1 repeated line was left out (train.txt:3)"


def test_classes_may_be_given(data):
    assert data.load(classes=["dog", "cat", "cow"]).names == {"boxes": ("dog", "cat", "cow")}
    np.testing.assert_array_equal(data.load(classes=["dog", "cat"]).target(0)["box_labels"], [0, 1])
    data.xml("c.d", document(thing("cat", [1, 1, 9, 9]), thing("dgo", [1, 1, 9, 9]), size=(16, 12)))
    message = r"1 problem:\n  c\.d\.xml object 2: unknown class 'dgo'; did you mean 'dog'\?$"
    data.fails(message, classes=["dog", "cat"])


def test_a_split_has_the_classes_that_occur_in_it(data):
    data.list("val", "c.d\n")
    assert data.load("val", val="val").names == {"boxes": ("cat",)}
    data.list("val", "a\n")
    data.fails("none of its images has an object; if that is meant, `classes` must name", train="val")
    assert len(data.load("val", val="val", classes=["cat"])) == 1


def test_boxes_without_area_are_dropped_and_counted(data):
    flat = [thing("dog", [5, 5, 5, 5]), thing("dog", [1, 1, 9, 9]), thing("dog", [1, 7, 9, 7])]
    data.xml("a", document(*flat))
    for one_based, corner in ((True, 0), (False, 1)):
        loaded = data.load(difficult="keep", one_based=one_based)
        np.testing.assert_array_equal(loaded.target(1)["boxes"], [[corner, corner, 9, 9]])
        assert loaded.notes[1] == "train: 2 boxes without area were dropped (a.xml object 1, a.xml object 3)"


def test_boxes_beyond_the_image_are_cut_off_and_counted(data):
    data.xml("a", document(thing("dog", [0, 11, 50, 30])))
    loaded = data.load(difficult="keep")
    np.testing.assert_array_equal(loaded.target(1)["boxes"], [[0, 10, 40, 30]])
    assert loaded.notes[1] == "train: 1 box that reached beyond its image was cut off there (a.xml object 1)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (thing("dog", ["nan", 1, 5, 5]), r"a\.xml object 1: box .* is not finite"),
        (thing("dog", [9, 1, 5, 5]), r"a\.xml object 1: box \(9, 1, 5, 5\).* ends before it begins"),
        (thing("dog", [6, 1, 5, 5]), r"a\.xml object 1: box \(6, 1, 5, 5\).* ends before it begins"),
        (thing("dog", [1, 31, 9, 60]), r"a\.xml object 1: box .* is outside of its image, 40×30 pixels"),
        (thing("dog", ["x", 1, 5, 5]), r"a\.xml object 1: bndbox/xmin is 'x'; expected a number"),
        (thing("dog", [1, 1, 5, ""]), r"a\.xml object 1: has no bndbox/ymax"),
        (thing(" ", [1, 1, 5, 5]), r"a\.xml object 1: has no name"),
        ("<object><name>dog</name></object>", r"a\.xml object 1: has no bndbox/xmin"),
    ],
)
def test_objects_that_nobody_can_repair_are_named(data, text, message):
    data.xml("a", document(text))
    data.fails(rf"^train: .*train\.txt: 1 problem:\n  {message}")


def test_malformed_files_have_their_line(data):
    data.xml("a", "<annotation>\n<object>\n</annotation>")
    data.xml("b", "")
    text = data.fails("2 problems")
    assert "a.xml:3: no XML at column 3: mismatched tag" in text
    assert "b.xml:1: no XML at column 1: no element found" in text


def test_an_image_without_annotation_file(data):
    data.list("train", "b\nx\n")
    data.fails(r"1 problem:\n  train\.txt:2: no annotation file .*x\.xml$")


def test_an_annotation_whose_image_is_missing(data):
    (data.path / "JPEGImages" / "b.jpg").unlink()
    data.fails(r"1 problem:\n  b\.xml: its image is missing: .*JPEGImages has no b\.jpg \(or of another format\)$")
    data.xml("b", document(thing("dog", [1, 1, 9, 9]), filename="x.jpg"))
    data.fails(r"another format\) nor x\.jpg, which it names$")
    data.xml("b", document(thing("dog", [1, 1, 9, 9]), filename="b.jpg"))
    data.fails(r"another format\)$")


def test_images_that_cannot_be_read(data):
    (data.path / "JPEGImages" / "b.jpg").write_bytes(b"")
    data.fails(r"b\.xml: cannot read image .*b\.jpg: the file is empty")
    assert len(data.load(verify=False)) == 3


def test_an_image_that_only_its_file_name_leads_to(data):
    (data.path / "JPEGImages" / "b.jpg").rename(data.path / "JPEGImages" / "other.jpg")
    data.xml("b", document(thing("dog", [1, 1, 9, 9]), filename="other.jpg"))
    assert data.load().sample_id(0) == "JPEGImages/other.jpg"


def test_ambiguous_images_are_refused(data):
    data.image("b.png")
    data.fails(r"b\.xml: there are several images for it: b\.jpg, b\.png")
    data.xml("b", document(thing("dog", [1, 1, 9, 9]), filename="b.png"))
    assert data.load().sample_id(0) == "JPEGImages/b.png"
    data.xml("b", document(thing("dog", [1, 1, 9, 9]), filename="a.png"))
    data.fails(r"b\.xml: names image a\.png, but b\.jpg is there too")


def test_an_image_with_two_records(data):
    data.xml("e", document(thing("dog", [1, 1, 9, 9]), filename="a.png"))
    data.list("train", "b\na\ne\n")
    data.fails(r"1 problem:\n  image a\.png has two records: a\.xml and e\.xml$")


def test_a_size_that_is_not_the_images(data):
    data.xml("a", document(size=(30, 40)))
    data.fails(r"1 problem:\n  a\.xml: states 30×40 pixels .* but its image has 40×30; does the image have an EXIF")
    data.xml("a", document(size=(40.5, 30)))
    data.fails(r"1 problem:\n  a\.xml: size/width is 40\.5; expected a number of pixels$")


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_a_size_that_is_not_stated_is_read(data, size):
    data.xml("a", document(thing("dog", [1, 1, 99, 9]), size=size))
    loaded = data.load(verify=False)
    assert loaded.size(1) == (30, 40)
    np.testing.assert_array_equal(loaded.target(1)["boxes"], [[0, 0, 40, 9]])


def test_paths_out_of_the_data_root_are_refused(data):
    data.xml("a", document(filename="../../secret.png"))
    data.fails(r"1 problem:\n  a\.xml: '\.\./\.\./secret\.png' points outside of the data root")
    data.xml("a", document(filename="/etc/passwd"))
    data.fails(r"a\.xml: '/etc/passwd' points outside of the data root")
    (data.path.parent / "x.xml").write_text(document())
    data.list("train", "../../x\n/etc/x\n")
    text = data.fails("2 problems")
    assert "train.txt:1: '../../x.xml' points outside of the data root" in text
    assert "train.txt:2: '/etc/x.xml' points outside of the data root" in text


def test_external_entities_are_not_read(data):
    (data.path / "secret").write_text("dog")
    entity = f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{data.path}/secret">]>'
    data.xml("a", entity + document(thing("&x;", [1, 1, 9, 9])))
    data.fails(r"a\.xml:1: no XML at column \d+: undefined entity")


def test_empty_set(data):
    data.list("train", "\n")
    data.fails("it lists no images")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"difficult": "crowd"}, "'ignore', 'keep' or 'drop'"),
        ({"classes": ["a", "a"]}, "twice"),
        ({"train": ""}, "at least 1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValidationError, match=message):
        VocOptions(**options)
