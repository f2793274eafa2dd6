"""The `folder` dataset."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ftengine.errors import DataError
from ftengine.protocols import DatasetContext
from ftengine_datasets.folder import folder
from ftengine_datasets.options import FolderOptions


def paint(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), colour).save(path)


@pytest.fixture
def root(tmp_path):
    """train/{bee,ant} and val/{ant,bee}, with files of the system's in between."""
    for name, colour in [("bee/2.png", 20), ("bee/1.png", 10), ("ant/deep/1.png", 30)]:
        paint(tmp_path / "train" / name, (colour, 0, 0))
    paint(tmp_path / "val" / "ant" / "1.png", (1, 1, 1))
    (tmp_path / "train" / "__MACOSX").mkdir()
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "ant" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "train" / "ant" / "notes.txt").write_text("x")
    return tmp_path


def load(root, split="train", **options):
    return folder(FolderOptions(root=root, **{"train": "train", **options}), DatasetContext(split=split))


def test_classes_are_sorted_folders_and_images_are_found_below_them(root):
    data = load(root)
    assert data.names == {"label": ("ant", "bee")}
    assert len(data) == 3
    assert [data.target(i) for i in range(3)] == [{"label": 0}, {"label": 1}, {"label": 1}]
    assert [data.sample_id(i) for i in range(3)] == ["train/ant/deep/1.png", "train/bee/1.png", "train/bee/2.png"]
    sample = data[2]
    assert sample.image.shape == (3, 4, 3)
    assert sample.image.dtype == np.uint8
    assert sample.image[0, 0].tolist() == [20, 0, 0]


def test_each_split_reads_its_own_folder(root):
    data = load(root, "val", val="val")
    assert [data.sample_id(i) for i in range(len(data))] == ["val/ant/1.png"]


def test_paths_may_be_absolute_or_start_at_home(root, monkeypatch):
    assert len(load("/nowhere", train=root / "train")) == 3
    monkeypatch.setenv("HOME", str(root))
    assert len(load("/nowhere", train="~/train")) == 3
    assert len(load("~")) == 3


def test_relative_root_still_gives_absolute_messages(root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(DataError, match=str(root / "trains")):
        load(".", train="trains")


def test_it_pickles(root):
    data = load(root)
    again = pickle.loads(pickle.dumps(data))
    assert again.names == data.names
    np.testing.assert_array_equal(again[1].image, data[1].image)


def test_missing_folder_names_the_nearest(root):
    with pytest.raises(DataError, match=r"^train: no folder .*/trian; did you mean .*/train\?$"):
        load(root, train="trian")
    with pytest.raises(DataError, match=rf"^val: no folder .*; only {root} exists of it$"):
        load(root, "val", val="no/such/val")


def test_a_file_is_not_a_folder(root):
    with pytest.raises(DataError, match="is a file; expected a folder"):
        load(root, train="train/ant/notes.txt")


def test_images_without_class_folders(root):
    with pytest.raises(DataError, match=r"no class folders \(<class>/<image>\); 2 images lie directly in it"):
        load(root, train="train/bee")
    (root / "bare").mkdir()
    with pytest.raises(DataError, match="it has no images either"):
        load(root, train="bare")


def test_empty_class_folders_are_named(root):
    (root / "train" / "wasp").mkdir()
    with pytest.raises(DataError, match=r"^train: class folder is empty in .*/train: wasp; expected images"):
        load(root)
    shutil.rmtree(root / "train" / "ant" / "deep")
    with pytest.raises(DataError, match=r"2 class folders are empty in .*: ant, wasp"):
        load(root)


def test_unreadable_images_are_found_before_training(root):
    (root / "train" / "bee" / "0.jpg").write_bytes(b"")
    (root / "train" / "bee" / "9.jpg").write_text("text")
    with pytest.raises(DataError, match=r"^train: .*bee/0\.jpg: the file is empty \(and 1 other\)$"):
        load(root)
    unchecked = load(root, verify=False)
    assert len(unchecked) == 5
    with pytest.raises(DataError, match=r"bee/0\.jpg"):
        unchecked.image(1)


def test_options_want_a_training_split():
    with pytest.raises(ValidationError, match="train"):
        FolderOptions()
