"""Splits have classes of their own, and the task tells also those apart that it was not trained on."""

import pickle

import numpy as np
import pytest
import torch
from ftengine_metric_learning import datasets
from ftengine_metric_learning.options import DigitsOptions, FolderOptions, TaskOptions
from ftengine_metric_learning.task import EmbeddingTask
from PIL import Image
from pydantic import ValidationError

from ftengine.errors import DataError
from ftengine.protocols import DatasetContext, TaskContext


def digits(split="train", **options):
    return datasets.digits(DigitsOptions(**options), DatasetContext(split))


def task(**options):
    return EmbeddingTask(TaskOptions(**options), TaskContext("label"))


def names(data):
    return data.names["label"]


def test_named_classes_are_taken_from_training():
    train, val = digits(val=[7, 8, 9]), digits("val", val=[7, 8, 9])
    assert (names(train), names(val)) == (tuple("0123456"), tuple("789"))
    assert len(train) + len(val) == 1797
    assert {train.sample_id(index) for index in range(len(train))}.isdisjoint(map(val.sample_id, range(len(val))))
    assert {val.target(index)["label"] for index in range(len(val))} == {0, 1, 2}


def test_a_part_of_the_classes_follows_from_the_seed():
    splits = {split: names(digits(split, val=0.3, test=0.2)) for split in ("train", "val", "test")}
    assert [len(own) for own in splits.values()] == [5, 3, 2]
    assert sorted(sum(splits.values(), ())) == list("0123456789")
    assert names(digits("val", val=0.3, test=0.2)) == splits["val"]
    assert any(names(digits("val", val=0.3, split_seed=seed)) != splits["val"] for seed in range(1, 4))


def test_two_digits_side_by_side_make_a_hundred_classes():
    data = digits(length=2, val=None)
    assert (len(data), len(names(data))) == (1797, 100)
    image = data.image(0)
    assert (image.shape, image.dtype) == ((8, 16, 3), np.uint8)
    assert min(np.bincount([data.target(index)["label"] for index in range(len(data))])) > 1


def test_a_limit_is_for_each_class():
    data = digits(val=None, limit=5)
    assert np.bincount([data.target(index)["label"] for index in range(len(data))]).tolist() == [5] * 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": ["7", "8"], "test": ["8"]}, "`test` and `val` have classes in common: 8"),
        ({"val": ["7", "7"]}, "`val` names a class twice"),
        ({"val": 0.5, "test": 0.5}, "leaves none to train on"),
        ({"val": []}, "at least 1 item"),
        ({"val": 1.5}, "less than 1"),
    ],
)
def test_splits_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        DigitsOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": ["x"]}, "val: unknown class 'x'"),
        ({"val": 0.01}, "val: 0.01 of 10 classes is 0, and 10 are left"),
        ({"val": list("0123456789")}, "train: no class is left"),
    ],
)
def test_classes_that_are_not_there_are_named(options, message):
    with pytest.raises(DataError, match=message):
        digits(**options)


def test_a_folder_is_split_by_its_folders(tmp_path):
    for name in ("ada", "bob", "cy"):
        for index in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (5, 4), (index, 0, 0)).save(tmp_path / name / f"{index}.png")
    options = FolderOptions(root=tmp_path, val=["bob"], limit=2)
    train, val = (datasets.folder(options, DatasetContext(split)) for split in ("train", "val"))
    assert (names(train), names(val)) == (("ada", "cy"), ("bob",))
    assert [train.sample_id(index) for index in range(len(train))] == ["ada/0.png", "ada/1.png", "cy/0.png", "cy/1.png"]
    assert train.image(1)[0, 0].tolist() == [1, 0, 0]
    (tmp_path / "cy" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cy.0\.png"):
        datasets.folder(options, DatasetContext("train"))
    assert list(datasets.folder(options, DatasetContext("train", tolerant=True)).unreadable) == [2]
    (tmp_path / "dan").mkdir()
    with pytest.raises(DataError, match=r"no image .* dan"):
        datasets.folder(options, DatasetContext("train"))
    with pytest.raises(DataError, match="is no folder"):
        datasets.folder(FolderOptions(root=tmp_path / "none"), DatasetContext("train"))


def test_new_classes_come_after_those_of_training():
    fitted = task()
    fitted.fit(digits(val=[0, 8]))
    assert fitted.labels.names == tuple("12345679")
    restored = task()
    restored.load_state(fitted.state())
    assert restored.state() == fitted.state()
    val = digits("val", val=[0, 8])
    encode = pickle.loads(pickle.dumps(restored.encoder(val, "the val split")))
    assert {int(encode(val.target(index))["label"]) for index in range(len(val))} == {8, 9}
    mixed = digits(val=None)
    encode = restored.encoder(mixed, "the test split")
    assert [int(encode({"label": label})["label"]) for label in range(10)] == [8, 0, 1, 2, 3, 4, 5, 6, 9, 7]


def test_classes_without_samples_are_not_learnt():
    class Few(datasets.Digits):
        def __len__(self):
            return 300

    full = digits(val=None)
    few = Few(full._pixels, full._labels, names(full), full._numbers)
    fitted = task()
    fitted.fit(few)
    assert fitted.labels.names == ("0", "1")


def test_one_class_is_refused():
    with pytest.raises(DataError, match="images of at least 2; found 3"):
        task().fit(digits(train=["3"], val=["4"]))


def test_a_label_that_is_none_is_named():
    data = digits(val=None)
    data._labels = data._labels.copy()
    data._labels[5] = 12
    with pytest.raises(DataError, match=r"the val split: sample 'digits-\d+': label is 12; expected .* 0 to 9"):
        task().encoder(data, "the val split")


def test_companions_are_of_one_class():
    data = digits(val=None)
    assert task().companions(data) is None
    found = task(per_class=4).companions(data)
    assert found.count == 4
    assert found.groups.tolist() == [data.target(index)["label"] for index in range(len(data))]


def test_a_row_has_the_numbers_of_the_embedding():
    assert task().describe({"embedding": torch.tensor([0.5, -0.25])}) == {"e0": 0.5, "e1": -0.25}
