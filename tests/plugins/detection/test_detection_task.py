import json
import pickle

import numpy as np
import pytest
import torch

from ftengine.errors import DataError
from ftengine.protocols import Dataset, TaskContext
from ftengine_detection.options import TaskOptions
from ftengine_detection.task import Detection


def target(boxes=(), labels=(), crowd=None, areas=None):
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    return {
        "boxes": boxes,
        "box_labels": np.array(labels, np.int64),
        "box_crowd": np.zeros(len(boxes), bool) if crowd is None else np.array(crowd, bool),
        "box_areas": sides.prod(1) if areas is None else np.array(areas, np.float64),
    }


class Boxes(Dataset):
    def __init__(self, names, targets, ids=None, size=(40, 60)):
        self.names = {"boxes": tuple(names)}
        self.ids = {} if ids is None else {"boxes": tuple(ids)}
        self.targets = targets
        self.shape = size

    def __len__(self):
        return len(self.targets)

    def target(self, index):
        return self.targets[index]

    def size(self, index):
        return self.shape

    def image(self, index):
        raise AssertionError("a task must not decode images")

    def sample_id(self, index):
        return f"scene-{index}.png"


A, B = [0, 0, 10, 20], [5.5, 1, 60, 40]
SCENES = [target([A, B], [1, 0]), target(), target([A, A, B], [1, 1, 1], crowd=[0, 0, 1])]


def make(**options):
    return Detection(TaskOptions(**options), TaskContext(field="boxes"))


def fitted(names=("cat", "dog"), targets=SCENES, ids=(7, 3), **options):
    task = make(**options)
    task.fit(Boxes(names, targets, ids))
    return task


def prediction(*rows):
    return {
        "boxes": torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor([row[1] for row in rows], dtype=torch.float32),
        "labels": torch.tensor([row[2] for row in rows], dtype=torch.int64),
    }


def test_fit_keeps_names_and_ids_and_counts_the_boxes_that_are_no_crowd():
    task = fitted()
    assert task.labels.names == ("cat", "dog")
    assert task.labels.ids == (7, 3)
    assert task.counts.dtype == np.int64
    assert task.counts.tolist() == [1, 3]
    assert task.samples == 3


def test_a_listed_class_may_be_without_boxes():
    assert fitted(("cat", "dog", "unused"), ids=None).counts.tolist() == [1, 3, 0]


@pytest.mark.parametrize("ids", [(7, 3), None])
def test_state_is_json_and_comes_back(ids):
    task, again = fitted(ids=ids), make()
    again.load_state(json.loads(json.dumps(task.state())))
    assert again.labels == task.labels
    np.testing.assert_array_equal(again.counts, task.counts)
    assert again.samples == task.samples
    assert again.state() == task.state()


def test_a_split_without_any_box_is_refused():
    with pytest.raises(DataError, match=r"^train: boxes: none of 2 images has a box"):
        make().fit(Boxes(["cat"], [target(), target([A], [0], crowd=[True])]))


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "train: boxes: there is no class"), (["cat", "cat"], "class names given more than once: cat")],
)
def test_names_must_be_there_and_differ(names, message):
    with pytest.raises(DataError, match=message):
        make().fit(Boxes(names, [target([A], [0])]))


def test_data_without_boxes_are_refused():
    data = Boxes(["cat"], [target([A], [0])])
    data.names = {"label": ("cat",)}
    with pytest.raises(DataError, match="no target field 'boxes'; they have: label"):
        make().fit(data)


def broken(**changes):
    good = target([A, B], [1, 0])
    for key, value in changes.items():
        if value is None:
            del good[key]
        else:
            good[key] = np.asarray(value)
    return good


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (broken(boxes=[A, [0, 0, np.nan, 5]]), "boxes[1] is [0, 0, nan, 5] as x1, y1, x2, y2; expected finite numbers"),
        (broken(boxes=[[4, 0, 4, 9], B]), "boxes[0] is [4, 0, 4, 9] as x1, y1, x2, y2; expected x1 < x2 and y1 < y2"),
        (broken(boxes=[A, [0, 9, 5, 3]]), "boxes[1] is [0, 9, 5, 3]"),
        (broken(boxes=[A, [-1, 0, 5, 5]]), "boxes[1] is [-1, 0, 5, 5] as x1, y1, x2, y2; expected it inside the image"),
        (broken(boxes=[A, [0, 0, 60.5, 5]]), "expected it inside the image (60x40)"),
        (broken(boxes=[A, [0, 0, 5, 41]]), "expected it inside the image (60x40)"),
        (broken(boxes=[[1, 2, 3], [1, 2, 3]]), "boxes has the shape [2, 3]; expected [N, 4]"),
        (broken(box_labels=[0]), "box_labels has the shape [1]; expected one value for each of 2 boxes"),
        (broken(box_crowd=False), "box_crowd has the shape []; expected one value for each of 2 boxes"),
        (broken(box_labels=[0, 2]), "box_labels[1] is 2; expected a class index from 0 to 1"),
        (broken(box_labels=[-1, 0]), "box_labels[0] is -1"),
        (broken(box_labels=[0.0, 1.0]), "box_labels is of the type float64; expected class indices, integers"),
        (broken(box_areas=[1, np.inf]), "box_areas[1] is inf; expected square pixels, at least 0"),
        (broken(box_areas=None), "its target has no 'box_areas'; it has: box_crowd, box_labels, boxes"),
    ],
)
def test_a_bad_target_names_place_sample_and_box(bad, message):
    with pytest.raises(DataError, match=r"^train: sample 'scene-1.png': ") as caught:
        make().fit(Boxes(["cat", "dog"], [SCENES[0], bad]))
    assert message in str(caught.value)
    with pytest.raises(DataError, match=r"^val: sample 'scene-0.png': ") as caught:
        fitted().encoder(Boxes(["cat", "dog"], [bad]), "val")
    assert message in str(caught.value)


def test_boxes_need_not_be_inside_where_the_size_is_not_known():
    task = make()
    task.fit(Boxes(["cat"], [target([[0, 0, 1000, 9]], [0])], size=None))
    assert task.counts.tolist() == [1]


def test_encoder_goes_by_class_name_and_pickles():
    data = Boxes(["dog", "cat"], SCENES, ids=(3, 7))
    encode = pickle.loads(pickle.dumps(fitted().encoder(data, "val")))
    first, second, third = (encode(data.target(i)) for i in range(3))
    assert first["labels"].tolist() == [0, 1]
    assert first["boxes"].tolist() == [A, B]
    assert first["areas"].tolist() == [200, 54.5 * 39]
    assert third["crowd"].tolist() == [False, False, True]
    assert second["boxes"].shape == (0, 4)
    assert {name: value.dtype for name, value in second.items()} == {
        "boxes": np.float64,
        "labels": np.int64,
        "crowd": bool,
        "areas": np.float64,
    }


def test_a_class_that_training_lacks_is_refused():
    with pytest.raises(DataError, match=r"^val has a class that the training split lacks: cow"):
        fitted().encoder(Boxes(["cat", "cow"], [target()]), "val")


def test_ids_that_differ_between_splits_are_refused():
    task = fitted()
    with pytest.raises(DataError, match=r"^val: the class 'dog' has the id 7, and in the training split 3; "):
        task.encoder(Boxes(["dog", "cat"], [target()], ids=(7, 3)), "val")
    task.encoder(Boxes(["dog", "cat"], [target()]), "val")


def test_collate_gives_lists_of_one_tensor_an_image():
    data = Boxes(["cat", "dog"], SCENES)
    task = fitted(ids=None)
    encode = task.encoder(data, "train")
    targets = task.collate([encode(data.target(i)) for i in range(3)])
    assert [tuple(boxes.shape) for boxes in targets["boxes"]] == [(2, 4), (0, 4), (3, 4)]
    assert [labels.tolist() for labels in targets["labels"]] == [[1, 0], [], [1, 1, 1]]
    assert {name: tensors[1].dtype for name, tensors in targets.items()} == {
        "boxes": torch.float64,
        "labels": torch.int64,
        "crowd": torch.bool,
        "areas": torch.float64,
    }


def test_records_are_coco_results_with_the_files_ids():
    found = prediction(([1.5, 2, 11.25, 30], 0.75, 1), ([0, 0, 0.1, 0.1], 0.5, 0))
    first, second = fitted().records(found, 42)
    assert first == {"image_id": 42, "category_id": 3, "bbox": [1.5, 2.0, 9.75, 28.0], "score": 0.75}
    assert second["category_id"] == 7
    # The width is that of the float32 box, to the last digit.
    assert second["bbox"][2] == float(np.float32(0.1))
    assert json.loads(json.dumps(first)) == first


def test_records_without_ids_count_categories_from_1():
    rows = fitted(ids=None).records(prediction((A, 0.9, 0), (A, 0.8, 1)), 0)
    assert [row["category_id"] for row in rows] == [1, 2]
    assert fitted().records(prediction(), 0) == []


def test_describe_counts_what_reaches_the_threshold():
    found = prediction((A, 0.9, 1), (B, 0.6, 0), (A, 0.6, 1), (A, 0.59, 0))
    assert fitted(threshold=0.6).describe(found) == {"boxes": 3, "n(cat)": 1, "n(dog)": 2}
    assert fitted(threshold=0.7).describe(found) == {"boxes": 1, "n(cat)": 0, "n(dog)": 1}
    assert fitted().describe(prediction()) == {"boxes": 0, "n(cat)": 0, "n(dog)": 0}


def test_draw_shows_the_boxes_above_the_threshold_in_a_new_image():
    image = np.zeros((300, 400, 3), np.uint8)
    task = fitted()
    blank = task.draw(image, prediction((A, 0.49, 0)))
    drawn = task.draw(image, prediction(([50, 60, 250, 260], 0.87, 1), (A, 0.49, 0)))
    assert drawn.dtype == np.uint8
    assert not image.any()
    assert not blank.any()
    assert drawn[60:260, 50:250].any()
    assert not drawn[0:20, 0:10].any()


def test_the_captions_are_name_and_score(monkeypatch):
    seen = []
    monkeypatch.setattr("ftengine_detection.task.draw_boxes", lambda *given: seen.append(given) or given[0])
    fitted().draw(np.zeros((40, 60, 3), np.uint8), prediction((A, 1.0, 0), (B, 0.876, 1)))
    _, boxes, labels, captions = seen[0]
    assert captions == ["cat", "dog 0.88"]
    assert boxes.tolist() == [A, B]
    assert labels.tolist() == [0, 1]


def test_the_perfect_prediction_has_every_box_but_the_crowds():
    task = fitted()
    encode = task.encoder(Boxes(["cat", "dog"], SCENES, ids=(7, 3)), "train")
    perfect = task.perfect(encode(SCENES[2]))
    assert perfect["boxes"].tolist() == [A, A]
    assert perfect["boxes"].dtype == torch.float32
    assert perfect["labels"].tolist() == [1, 1]
    assert perfect["scores"].tolist() == [1, 1]
    assert len(task.perfect(encode(SCENES[1]))["boxes"]) == 0


def test_strata_are_the_rarest_class_of_each_image():
    scenes = [target([A], [0]), target([A, B], [0, 1]), target(), target([A], [0]), target([A, B], [2, 0])]
    scenes.append(target([A], [1], crowd=[True]))
    assert make().strata(Boxes("abc", scenes)).tolist() == [0, 1, 3, 0, 2, 3]
