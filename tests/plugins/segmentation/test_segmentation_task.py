import json
import pickle

import numpy as np
import pytest
import torch

from ftengine.errors import DataError, FtengineError
from ftengine.pictures import overlay, palette
from ftengine.protocols import Dataset, TaskContext
from ftengine_segmentation.options import TaskOptions
from ftengine_segmentation.task import Segmentation

NAMES = ("sky", "road", "car")


class Masks(Dataset):
    def __init__(self, names=NAMES, masks=None, ids=None):
        self.names = {"mask": tuple(names)}
        self.masks = masks
        if ids is not None:
            self.ids = {"mask": tuple(ids)}

    def __len__(self):
        return 3 if self.masks is None else len(self.masks)

    def target(self, index):
        return {}

    def image(self, index):
        raise AssertionError("a task must not decode images")

    def mask(self, index):
        if self.masks is None:
            raise AssertionError("masks are read only where they are to be counted")
        return np.asarray(self.masks[index])

    def sample_id(self, index):
        return f"sample-{index}.png"


def make(**options):
    return Segmentation(TaskOptions(**options), TaskContext(field="mask"))


def fitted(names=NAMES, ids=None, **options):
    task = make(**options)
    task.fit(Masks(names, ids=ids))
    return task


def uint8(rows):
    return np.array(rows, np.uint8)


def test_fit_learns_names_and_ids_without_reading_a_mask():
    task = fitted(ids=(7, 8, 11))
    assert task.labels.names == NAMES
    assert task.labels.ids == (7, 8, 11)
    assert task.labels.ignore == 255
    assert task.pixels is None
    assert fitted().labels.ids is None


def test_fit_counts_pixels_where_it_is_asked_to():
    task = make(count_pixels=True)
    task.fit(Masks(masks=[uint8([[0, 0, 255], [2, 0, 255]]), uint8([[2]])]))
    assert task.pixels.dtype == np.int64
    assert task.pixels.tolist() == [3, 0, 2]


@pytest.mark.parametrize("ids", [None, (7, 8, 11)])
@pytest.mark.parametrize("count", [False, True])
def test_state_is_json_and_comes_back(ids, count):
    task = make(count_pixels=count)
    task.fit(Masks(masks=[uint8([[0, 1, 2, 255]])], ids=ids))
    again = make()
    again.load_state(json.loads(json.dumps(task.state())))
    assert again.labels == task.labels
    assert again.state() == task.state()
    if count:
        assert again.pixels.dtype == np.int64


def test_a_state_of_another_field_is_refused():
    state = fitted().state() | {"field": "panoptic"}
    with pytest.raises(FtengineError, match="trained on the target field 'panoptic', and this run's is 'mask'"):
        make().load_state(state)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Masks(("sky",)), "segmentation needs 2 to 255 classes, the background among them; found 1: sky"),
        (Masks([str(i) for i in range(256)]), "needs 2 to 255 classes, the background among them; found 256"),
        (Masks(("sky", "car", "sky")), "class names given more than once: sky"),
        (Masks(ids=(1, 2)), r"3 classes need as many different ids; found [1, 2]"),
        (Masks(ids=(1, 2, 2)), r"3 classes need as many different ids; found [1, 2, 2]"),
        (Masks(masks=[]), "train: no samples"),
    ],
)
def test_data_that_fit_refuses(data, message):
    with pytest.raises(DataError) as caught:
        make().fit(data)
    assert str(caught.value).startswith("train: ")
    assert message in str(caught.value)


def test_data_without_masks_are_refused():
    data = Masks()
    data.names = {"label": ("a", "b")}
    with pytest.raises(DataError, match="train: the data have no target field 'mask'; they have: label"):
        make().fit(data)


def test_most_classes():
    task = fitted([str(i) for i in range(255)])
    mask = np.arange(256, dtype=np.uint8)[None]
    encode = task.encoder(Masks(task.labels.names[::-1]), "the val split")
    np.testing.assert_array_equal(encode({"mask": mask})["mask"], uint8([[*range(254, -1, -1), 255]]))


# --- encoding ------------------------------------------------------------------------------------------------------


def test_the_encoder_keeps_a_mask_with_the_same_classes():
    mask = uint8([[0, 1, 2], [255, 2, 0]])
    encode = fitted().encoder(Masks(), "the train split")
    encoded = encode({"mask": mask})
    assert encoded["mask"].dtype == np.uint8
    np.testing.assert_array_equal(encoded["mask"], mask)


def test_the_encoder_maps_classes_by_name():
    encode = fitted().encoder(Masks(("car", "sky")), "the val split")
    np.testing.assert_array_equal(encode({"mask": uint8([[0, 1, 255]])})["mask"], uint8([[2, 0, 255]]))
    again = pickle.loads(pickle.dumps(encode))
    np.testing.assert_array_equal(again({"mask": uint8([[1, 0]])})["mask"], uint8([[0, 2]]))


def test_a_class_that_the_training_split_lacks_is_refused():
    with pytest.raises(DataError, match="the val split has a class that the training split lacks: bus"):
        fitted().encoder(Masks(("sky", "bus")), "the val split")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            uint8([[0, 3, 3], [4, 1, 255]]),
            "mask holds 3, 4 in 3 of 6 pixels; expected class indices from 0 to 2, or 255",
        ),
        (np.zeros((2, 2), np.int64), r"mask is int64 [2, 2]; expected an array uint8 [height, width]"),
        (np.zeros((2, 2, 1), np.uint8), r"mask is uint8 [2, 2, 1]; expected an array uint8"),
        ([[0, 1]], "mask is list; expected an array uint8"),
    ],
)
def test_masks_that_are_wrong(mask, message):
    encode = fitted().encoder(Masks(), "the train split")
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        encode({"mask": mask})
    assert message in str(caught.value)


def test_a_value_that_only_this_split_lacks_is_wrong_too():
    encode = fitted().encoder(Masks(("sky", "car")), "the val split")
    with pytest.raises(ValueError, match="holds 2 in 1 of 1 pixels; expected class indices from 0 to 1"):
        encode({"mask": uint8([[2]])})


def test_counting_names_the_sample_whose_mask_is_wrong():
    with pytest.raises(DataError, match=r"train: sample 'sample-1\.png': mask holds 9 in 1 of 2 pixels"):
        make(count_pixels=True).fit(Masks(masks=[uint8([[0, 1]]), uint8([[0, 9]])]))


def test_masks_of_one_size_are_stacked():
    task = fitted()
    encoded = [{"mask": uint8([[0, 1], [2, 255]])}, {"mask": uint8([[1, 1], [1, 0]])}]
    stacked = task.collate(encoded)["mask"]
    assert stacked.dtype == torch.uint8
    assert stacked.tolist() == [[[0, 1], [2, 255]], [[1, 1], [1, 0]]]
    listed = task.collate([*encoded, {"mask": uint8([[0, 1]])}])["mask"]
    assert [mask.tolist() for mask in listed] == [[[0, 1], [2, 255]], [[1, 1], [1, 0]], [[0, 1]]]
    assert {mask.dtype for mask in listed} == {torch.uint8}


# --- answers -------------------------------------------------------------------------------------------------------


def prediction(rows):
    return {"mask": torch.tensor(rows, dtype=torch.uint8)}


def test_a_prediction_is_described_by_the_share_of_each_class():
    row = fitted().describe(prediction([[0, 0, 2]]))
    assert row == {"share(sky)": 0.6667, "share(road)": 0.0, "share(car)": 0.3333}


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (None, [[0, 1, 2]]),
        ((7, 8, 11), [[7, 8, 11]]),
        ((0, 1, 255), [[0, 1, 255]]),
        ((1000, 2000, 3000), [[0, 1, 2]]),
        ((-1, 0, 1), [[0, 1, 2]]),
    ],
)
def test_the_index_map_holds_the_files_own_ids_where_they_fit(ids, expected):
    result = fitted(ids=ids).index_map(prediction([[0, 1, 2]]))
    assert result.dtype == np.uint8
    assert result.tolist() == expected


def test_the_picture_is_the_image_under_the_colours_of_the_classes():
    task = fitted()
    image = np.full((600, 600, 3), 100, np.uint8)
    mask = np.zeros((600, 600), np.uint8)
    mask[:, 300:] = 2
    picture = task.draw(image, {"mask": torch.from_numpy(mask)})
    np.testing.assert_array_equal(picture, overlay(image, mask, NAMES))
    np.testing.assert_array_equal(picture[0, 0], np.round(100 / 2 + palette(1)[0] / 2))


def test_a_perfect_prediction_is_the_target():
    mask = uint8([[0, 1], [2, 255]])
    task = fitted()
    perfect = task.perfect({"mask": mask[:, ::-1]})
    assert perfect["mask"].tolist() == [[1, 0], [255, 2]]
    task.draw(np.zeros((2, 2, 3), np.uint8), perfect)  # what is ignored is no class to draw
