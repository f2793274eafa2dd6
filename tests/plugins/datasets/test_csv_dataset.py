"""The `csv` dataset."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ftengine.errors import DataError
from ftengine.protocols import DatasetContext
from ftengine_datasets.csv_file import csv_file
from ftengine_datasets.options import CsvOptions

TABLE = """\
image,kind,tags,wet,red,price,area
pics/a.png,cat,indoor; old,0,1,1.5,10
pics/b.png,ant,,1,0,-2e3,20
pics/a.png,cat,old,1,true,0,30
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data" / "pics").mkdir(parents=True)
    for name, colour in (("a", 10), ("b", 20)):
        Image.new("RGB", (5, 4), (colour, 0, 0)).save(tmp_path / "data" / "pics" / f"{name}.png")
    (tmp_path / "data" / "train.csv").write_text(TABLE)
    return tmp_path


def load(root, split="train", **options):
    return csv_file(CsvOptions(root=root, **{"train": "data/train.csv", **options}), DatasetContext(split=split))


def fails(root, text, message, encoding="utf-8", **options):
    (root / "data" / "train.csv").write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=message):
        load(root, **options)


def test_label(root):
    data = load(root, label="kind")
    assert data.names == {"label": ("ant", "cat")}
    assert [data.target(i)["label"] for i in range(3)] == [1, 0, 1]
    assert type(data.target(0)["label"]) is int
    assert [data.sample_id(i) for i in range(3)] == ["pics/a.png", "pics/b.png", "pics/a.png"]
    assert data[1].image.shape == (4, 5, 3)
    assert data[1].image[0, 0].tolist() == [20, 0, 0]


def test_labels_joined_in_one_column(root):
    data = load(root, labels="tags")
    assert data.names == {"labels": ("indoor", "old")}
    rows = [data.target(i)["labels"] for i in range(3)]
    assert rows[0].dtype == np.float32
    assert np.stack(rows).tolist() == [[1, 1], [0, 0], [0, 1]]


def test_labels_in_columns_keep_their_order(root):
    data = load(root, labels=["wet", "red"])
    assert data.names == {"labels": ("wet", "red")}
    rows = np.stack([data.target(i)["labels"] for i in range(3)])
    assert rows.dtype == np.float32
    assert rows.tolist() == [[0, 1], [1, 0], [1, 1]]


def test_targets(root):
    data = load(root, targets=["price", "area"])
    assert data.names == {"values": ("price", "area")}
    rows = np.stack([data.target(i)["values"] for i in range(3)])
    assert rows.dtype == np.float32
    assert rows.tolist() == [[1.5, 10], [-2000, 20], [0, 30]]
    assert load(root, targets="area").target(2)["values"].tolist() == [30]


def test_several_fields_at_once_and_pickling(root):
    data = pickle.loads(pickle.dumps(load(root, label="kind", labels="tags", targets="price")))
    assert set(data.names) == set(data.target(0)) == {"label", "labels", "values"}


def test_options_say_which_fields_they_provide():
    assert CsvOptions(train="t.csv", label="kind").target_fields() == {"label"}
    assert CsvOptions(train="t.csv", labels=["a"], targets="b").target_fields() == {"labels", "values"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of `label`, `labels` and `targets`"),
        ({"labels": "a", "separator": ","}, "both ','"),
        ({"targets": ["a", "a"]}, "names a column twice"),
        ({"labels": []}, "at least 1"),
        ({"label": "a", "delimiter": ";;"}, "at most 1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValidationError, match=message):
        CsvOptions(train="t.csv", **options)


def test_another_delimiter_line_end_and_a_byte_order_mark(root):
    text = TABLE.replace(";", "|").replace(",", ";").replace("\n", "\r\n") + ";;;;;;\r\n\r\n"
    (root / "data" / "train.csv").write_bytes(text.encode("utf-8-sig"))
    data = load(root, labels="tags", targets="area", delimiter=";", separator="|")
    assert data.names["labels"] == ("indoor", "old")
    assert [data.target(i)["values"].item() for i in range(len(data))] == [10, 20, 30]


def test_spaces_before_quotes(root):
    text = 'image, kind\npics/a.png, "cat, ""old"""\npics/b.png,  ant\n'
    (root / "data" / "train.csv").write_text(text)
    assert load(root, label="kind").names == {"label": ("ant", 'cat, "old"')}


def test_spaces_as_delimiters(root):
    (root / "data" / "train.csv").write_text("image kind\npics/a.png cat\npics/b.png ant\n")
    assert load(root, label="kind", delimiter=" ").names == {"label": ("ant", "cat")}


def test_images_folder(root):
    (root / "data" / "train.csv").write_text("image,kind\na.png,x\n")
    assert len(load(root, label="kind", images="data/pics")) == 1
    with pytest.raises(DataError, match=r"images: no folder .*pic; did you mean .*pics\?"):
        load(root, label="kind", images="data/pic")


def test_missing_file(root):
    with pytest.raises(DataError, match=r"^train: no file .*/tarin\.csv; did you mean .*/train\.csv\?"):
        load(root, label="kind", train="data/tarin.csv")


def test_missing_column_names_the_header_and_the_nearest(root):
    with pytest.raises(DataError, match=r"unknown column 'kinds'; did you mean 'kind'\?; its header: image, kind"):
        load(root, label="kinds")
    with pytest.raises(DataError, match="unknown column 'file'"):
        load(root, label="kind", image="file")


def test_wrong_delimiter_is_suspected(root):
    fails(root, "image;kind\npics/a.png;x\n", r"is the delimiter ';'\?", label="kind")


def test_missing_images_are_named(root):
    text = "image,kind\npics/a.png,x\npics/c.png,x\npics/c.png,x\npics/d.png,x\n"
    fails(root, text, r"^train: .*train\.csv: .*pics/c\.png: no such file \(and 1 other\)$", label="kind")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("n/a", "'n/a' is not a number"),
        ("", "is empty; expected a number"),
        ("nan", "not a finite"),
        ("1e39", "not a finite float32"),
        ('"1,200"', "'1,200' is not a number"),
    ],
)
def test_bad_targets_have_line_column_and_value(root, cell, message):
    text = f"image,price\npics/a.png,1\npics/a.png,{cell}\n"
    fails(root, text, rf"train\.csv:3: column 'price': .*{message}", targets="price")


def test_the_first_bad_cell_is_shown_and_the_others_counted(root):
    text = "image,kind,price\npics/a.png,x,1\npics/b.png,x,?\n,x,1\npics/b.png,,1\n"
    message = r"train\.csv:3: column 'price': '\?' is not a number \(and 2 other cells\)$"
    fails(root, text, message, label="kind", targets="price")


def test_empty_label_and_bad_bit(root):
    fails(root, "image,kind\npics/a.png,\n", r"train\.csv:2: column 'kind': is empty$", label="kind")
    fails(root, "image,wet\npics/a.png,2\n", r"train\.csv:2: column 'wet': '2' is not 0 or 1", labels=["wet"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty$"),
        ("image,kind\n", "no rows below its header"),
        ("image,kind\npics/a.png\n", r"train\.csv:2: 1 cells, but the header has 2 columns"),
        ("image,kind,kind\npics/a.png,x,y\n", "more than one column is called 'kind'"),
    ],
)
def test_tables_of_the_wrong_shape(root, text, message):
    fails(root, text, message, label="kind")


def test_other_encodings_are_refused(root):
    fails(root, "image,kind\npics/a.png,müde\n", "is not UTF-8 text", encoding="latin-1", label="kind")
