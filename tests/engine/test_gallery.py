"""Pictures of an evaluation, truth beside prediction."""

from __future__ import annotations

import numpy as np
import pytest

from drawing import Boxes, Masks, Plain, Squares, boxes_of, mask_of
from ftengine.files import whole
from ftengine.gallery import LARGEST, Gallery, safe
from ftengine.images import read_image


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def gallery(tmp_path, warnings):
    return Gallery(tmp_path, 3, warnings.append)


def show(gallery, task, data, first, predictions, step=12):
    indices = range(first, first + len(predictions))
    gallery.page(step).show("finding/it", task, data, task.encoder(data, "val"), indices, predictions)


def written(gallery):
    return sorted(path.relative_to(gallery.directory).as_posix() for path in gallery.directory.rglob("*.*"))


def test_the_first_images_are_shown_whatever_the_batches(gallery, warnings):
    data = Squares(["a/b 1.jpg", "a/c.png", "ä\\d", "e"])
    show(gallery, Boxes(), data, 0, [boxes_of(1), boxes_of(2)])
    show(gallery, Boxes(), data, 2, [boxes_of(1), boxes_of(2)])
    show(gallery, Boxes(), data, 4, [boxes_of(1)])
    folder = "pictures/step-00000012/it"
    assert written(gallery) == [f"{folder}/00-b_1.png", f"{folder}/01-c.png", f"{folder}/02-d.png"]
    assert warnings == []


def test_truth_stands_beside_the_prediction(gallery):
    data = Squares(["a"])
    show(gallery, Masks(), data, 0, [mask_of(0)])
    sheet = read_image(gallery.directory / "pictures/step-00000012/it/00-a.png")
    middle = sheet.shape[1] // 2
    left, right = sheet[:, : middle - 4], sheet[:, middle + 4 :]
    truth = Masks().draw(data.image(0), Masks().perfect(data[0].target))
    predicted = Masks().draw(data.image(0), mask_of(0))
    for half, drawn in ((left, truth), (right, predicted)):
        top = sheet.shape[0] - max(len(truth), len(predicted))
        colours = {tuple(colour) for colour in drawn[:100].reshape(-1, 3).tolist()}
        assert colours <= {tuple(colour) for colour in half[top:].reshape(-1, 3).tolist()}
    assert not np.array_equal(left, right)


def test_large_pictures_are_made_smaller(gallery):
    class Large(Squares):
        def image(self, index):
            return np.zeros((900, 3000, 3), np.uint8)

    show(gallery, Boxes(), Large(["a"]), 0, [boxes_of(1)])
    sheet = read_image(gallery.directory / "pictures/step-00000012/it/00-a.png")
    assert sheet.shape[1] == LARGEST
    assert 200 < sheet.shape[0] < 400


def test_tasks_that_draw_nothing_read_nothing(gallery, warnings):
    class Unreadable(Squares):
        def image(self, index):
            raise AssertionError

    show(gallery, Plain(), Unreadable(["a"]), 0, [{"number": 1.0}])
    assert (written(gallery), warnings) == ([], [])


def test_a_failure_warns_once_and_the_rest_is_shown(gallery, warnings):
    class Broken(Squares):
        def image(self, index):
            if index < 2:
                raise OSError(f"image {index} is gone")
            return super().image(index)

    for step in (1, 2):
        show(gallery, Boxes(), Broken(["a", "b", "c"]), 0, [boxes_of(1)] * 3, step)
    assert warnings == ["a picture could not be made: OSError: image 0 is gone"]
    assert written(gallery) == [f"pictures/step-0000000{step}/it/02-c.png" for step in (1, 2)]


def test_a_picture_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "picture.png"

    def write():
        with whole(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "expected"), [("../../etc/passwd", "passwd"), ("..", "sample"), ("a:b*c?", "a_b_c"), ("x" * 300, "x" * 80)]
)
def test_names_are_safe(name, expected):
    assert safe(name) == expected
