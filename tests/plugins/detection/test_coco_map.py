import json
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ftengine.protocols import LabelMap, MetricContext, TaskContext
from ftengine_detection.metrics import CocoMap
from ftengine_detection.options import SUMMARY, CocoMapOptions, TaskOptions
from ftengine_detection.task import Detection

NAMES = ("ants", "bees", "cats", "dogs")
IDS = (90, 7, 18, 3)
"""Neither in order nor without gaps."""


def make(per_class=True, ids=IDS):
    return CocoMap(CocoMapOptions(per_class=per_class), MetricContext(SimpleNamespace(labels=LabelMap(NAMES, ids))))


def corners(box):
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def annotation_file(images=40, seed=0):
    """An annotation file in which dogs never occur, images without objects, crowds, and boxes of all sizes."""
    rng = np.random.default_rng(seed)
    file = {
        "images": [{"id": 3 * i + 1, "width": 640, "height": 480} for i in range(images)],
        "categories": [{"id": number, "name": name} for number, name in zip(IDS, NAMES, strict=True)],
        "annotations": [],
    }
    for image in file["images"][1:]:
        for _ in range(rng.integers(0, 6)):
            width, height = np.round(np.exp(rng.uniform(1.5, 5.5, 2)), 2)
            box = [*np.round(rng.uniform(0, 300, 2), 2).tolist(), float(width), float(height)]
            file["annotations"].append(
                {
                    "id": len(file["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": int(rng.choice(IDS[:3])),
                    "bbox": box,
                    "area": round(box[2] * box[3] * rng.uniform(0.5, 1), 3),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
    return file


def detections(file, seed=0):
    """For each image boxes near the true ones and false ones, with many scores alike; none for some images."""
    rng = np.random.default_rng(seed)
    found = []
    for number, image in enumerate(file["images"]):
        boxes, labels = [], []
        for row in file["annotations"]:
            if row["image_id"] == image["id"] and number % 7:
                for _ in range(rng.integers(0, 3)):
                    shift = rng.normal(0, 0.07, 4) * np.array([row["bbox"][2], row["bbox"][3]] * 2)
                    boxes.append((np.array(corners(row["bbox"])) + shift).clip(0))
                    labels.append(IDS.index(row["category_id"]) if rng.random() < 0.8 else 3)
        if number % 7:
            for _ in range(rng.integers(0, 150 if number == 5 else 4)):
                box = [*rng.uniform(0, 300, 2), *rng.uniform(5, 200, 2)]
                boxes.append(corners(box))
                labels.append(int(rng.integers(4)))
        order = np.argsort(-np.round(rng.random(len(boxes)), 1), kind="stable")
        scores = -np.sort(-np.round(rng.random(len(boxes)), 1))
        found.append(
            {
                "boxes": torch.tensor(np.array(boxes).reshape(-1, 4)[order], dtype=torch.float32),
                "scores": torch.tensor(scores, dtype=torch.float32),
                "labels": torch.tensor(np.array(labels, np.int64)[order]),
            }
        )
    return found


def truths(file):
    """What the task's collate makes of the file's images, one an image."""
    made = []
    for image in file["images"]:
        rows = [row for row in file["annotations"] if row["image_id"] == image["id"]]
        made.append(
            {
                "boxes": torch.tensor([corners(row["bbox"]) for row in rows], dtype=torch.float64).reshape(-1, 4),
                "labels": torch.tensor([IDS.index(row["category_id"]) for row in rows], dtype=torch.int64),
                "crowd": torch.tensor([bool(row["iscrowd"]) for row in rows], dtype=torch.bool),
                "areas": torch.tensor([row["area"] for row in rows], dtype=torch.float64),
            }
        )
    return made


def feed(metric, found, truth, size=8):
    for start in range(0, len(found), size):
        part = truth[start : start + size]
        metric.update(found[start : start + size], {name: [one[name] for one in part] for name in truth[0]})
    return metric


def reference(folder, file, found):
    """The twelve numbers, and the AP of each class, by pycocotools from two files on disk."""
    task = Detection(TaskOptions(), TaskContext("boxes"))
    task.labels = LabelMap(NAMES, IDS)
    rows = [
        row for image, one in zip(file["images"], found, strict=True) for row in (task.records(one, image["id"]) or [])
    ]
    (folder / "truth.json").write_text(json.dumps(file))
    (folder / "found.json").write_text(json.dumps(rows))
    coco = COCO(str(folder / "truth.json"))
    evaluator = COCOeval(coco, coco.loadRes(str(folder / "found.json")), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    each = {}
    for name, number in zip(NAMES, IDS, strict=True):
        precision = evaluator.eval["precision"][:, :, sorted(IDS).index(number), 0, 2]
        each[name] = precision[precision > -1].mean() if (precision > -1).any() else -1
    return evaluator.stats, each


def same(values, expected):
    return values.keys() == expected.keys() and all(
        values[name] == value or (math.isnan(values[name]) and math.isnan(value)) for name, value in expected.items()
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_values_are_those_of_pycocotools_to_the_last_digit(tmp_path, seed):
    file = annotation_file(seed=seed)
    found = detections(file, seed)
    numbers, each = reference(tmp_path, file, found)
    values = feed(make(), found, truths(file)).compute()
    assert [values[name] for name in SUMMARY] == numbers.tolist()
    assert 0.05 < values["map"] < values["map_50"] < 1
    assert math.isnan(values["map/dogs"])
    assert each["dogs"] == -1
    for name in NAMES[:3]:
        assert values[f"map/{name}"] == each[name]
    assert list(values) == [*SUMMARY, *(f"map/{name}" for name in NAMES)]


def test_a_size_without_objects_has_no_value(tmp_path):
    file = annotation_file()
    file["annotations"] = [row | {"area": 2000.0} for row in file["annotations"]]
    found = detections(file)
    numbers, _ = reference(tmp_path, file, found)
    values = feed(make(), found, truths(file)).compute()
    for name, number in zip(SUMMARY, numbers, strict=True):
        assert (number == -1) == math.isnan(values[name])
    assert {name for name in SUMMARY if math.isnan(values[name])} == {
        "map_small",
        "map_large",
        "mar_small",
        "mar_large",
    }


def test_batches_and_merging_do_not_change_the_values():
    file = annotation_file()
    found, truth = detections(file), truths(file)
    expected = feed(make(), found, truth, size=len(found)).compute()
    assert same(feed(make(), found, truth, size=3).compute(), expected)
    left, right = feed(make(), found[:15], truth[:15]), feed(make(), found[15:], truth[15:])
    assert not same(left.compute(), expected)
    left.merge(pickle.loads(pickle.dumps(right)))
    assert same(left.compute(), expected)
    unused = make()
    unused.merge(left)
    assert same(unused.compute(), expected)
    unused.reset()
    assert all(math.isnan(value) for value in unused.compute().values())
    feed(unused, found, truth)
    assert same(unused.compute(), expected)


def test_crowds_are_neither_found_nor_missed():
    crowd = {"boxes": [[0.0, 0, 100, 100]], "labels": [0], "crowd": [True], "areas": [9000.0]}
    single = {"boxes": [[200.0, 200, 250, 250]], "labels": [0], "crowd": [False], "areas": [2500.0]}
    both = {name: torch.tensor(crowd[name] + single[name]) for name in crowd}
    # Three detections inside the crowd, with better scores than the right one.
    found = {
        "boxes": torch.tensor([[0.0, 0, 50, 50], [10, 10, 60, 60], [50, 50, 100, 100], [200, 200, 250, 250]]),
        "scores": torch.tensor([0.9, 0.8, 0.7, 0.6]),
        "labels": torch.zeros(4, dtype=torch.int64),
    }
    assert feed(make(), [found], [both]).compute()["map"] == pytest.approx(1)
    both["crowd"] = torch.tensor([False, False])
    assert feed(make(), [found], [both]).compute()["map"] < 0.2


def test_perfect_detections_score_one():
    file = annotation_file()
    truth = truths(file)
    task = Detection(TaskOptions(), TaskContext("boxes"))
    found = [task.perfect({name: tensor.numpy() for name, tensor in one.items()}) for one in truth]
    values = feed(make(), found, truth).compute()
    assert values["map"] == pytest.approx(1)
    assert values["mar_100"] == 1


def test_without_a_detection_the_values_are_zero():
    truth = truths(annotation_file())
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    values = feed(make(), [nothing] * len(truth), truth).compute()
    assert {name: value for name, value in values.items() if not math.isnan(value)} == dict.fromkeys(
        [*SUMMARY, "map/ants", "map/bees", "map/cats"], 0.0
    )


def test_without_objects_no_value_is_defined():
    file = annotation_file()
    found = detections(file)
    file["annotations"] = []
    values = feed(make(), found, truths(file)).compute()
    assert all(math.isnan(value) for value in values.values())


def test_only_the_best_hundred_detections_of_an_image_count():
    truth = {"boxes": [[0.0, 0, 50, 50]], "labels": [1], "crowd": [False], "areas": [2500.0]}
    truth = {name: torch.tensor(value) for name, value in truth.items()}
    found = {
        "boxes": torch.tensor([[100.0, 100, 150, 150]] * 100 + [[0.0, 0, 50, 50]]),
        "scores": torch.linspace(1, 0, 101),
        "labels": torch.ones(101, dtype=torch.int64),
    }
    assert feed(make(), [found], [truth]).compute()["mar_100"] == 0
    found = {name: value[1:] for name, value in found.items()}
    assert feed(make(), [found], [truth]).compute()["mar_100"] == 1


def test_classes_can_be_left_out():
    file = annotation_file()
    values = feed(make(per_class=False), detections(file), truths(file)).compute()
    assert tuple(values) == SUMMARY


def test_classes_need_no_ids():
    file = annotation_file()
    found, truth = detections(file), truths(file)
    plain, numbered = feed(make(ids=None), found, truth).compute(), feed(make(), found, truth).compute()
    assert plain == pytest.approx(numbered, nan_ok=True)


def test_nothing_is_printed(capsys):
    file = annotation_file()
    feed(make(), detections(file), truths(file)).compute()
    assert capsys.readouterr().out == ""


def test_what_was_seen_is_a_copy():
    file = annotation_file()
    found, truth = detections(file), truths(file)
    metric = feed(make(), found, truth)
    expected = metric.compute()
    for one in (*found, *truth):
        for tensor in one.values():
            tensor.zero_()
    assert same(metric.compute(), expected)


def test_metrics_of_another_kind_do_not_merge():
    with pytest.raises(TypeError, match="cannot merge SimpleNamespace into CocoMap"):
        make().merge(SimpleNamespace(images=[]))
