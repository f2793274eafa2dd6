"""Detection and segmentation from files: what is measured is what the written results come to."""

import contextlib
import io
import json
import signal

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SCENES = {"count": 60, "size": 64, "digits": [1, 3], "digit_size": [20, 32]}
SPLITS = {"train": range(48), "val": range(48, 60)}
TRAIN = {"epochs": 2, "batch_size": 8, "precision": "fp32", "log_every": 1, "pictures": 3}
COMMON = {
    "backbone": {"name": "timm", "model": "test_resnet", "weights": "none"},
    "image": {"size": 48},
    "optimizer": {"name": "adamw", "lr": 0.002},
    "train": TRAIN,
}
CLASSES = ["background", *"0123456789"]


def coco_id(label):
    return 10 + 3 * int(label)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scenes of three shapes as files, with boxes in COCO's format (ids with gaps, one crowd) and masks."""
    from ftengine.protocols import DatasetContext
    from ftengine_datasets.digits import digits
    from ftengine_datasets.options import DigitsOptions

    root = tmp_path_factory.mktemp("scenes")
    data = digits(DigitsOptions(scenes=SCENES), DatasetContext("train"))
    for split, indices in SPLITS.items():
        coco = {"images": [], "annotations": [], "categories": []}
        coco["categories"] = [{"id": coco_id(name), "name": name} for name in data.names["boxes"]]
        for place in ("images", "masks"):
            (root / split / place).mkdir(parents=True)
        for index in indices:
            margin = ((0, 0), (0, 25), (17, 0))[index % 3]
            image = np.pad(data.image(index), ((0, margin[0]), (0, margin[1]), (0, 0)))
            mask = np.pad(data.mask(index), ((0, margin[0]), (0, margin[1])), constant_values=99)
            name = f"{index}.png"
            Image.fromarray(image).save(root / split / "images" / name)
            Image.fromarray(mask).save(root / split / "masks" / name)
            height, width = mask.shape
            coco["images"].append({"id": 1000 - index, "file_name": name, "height": height, "width": width})
            target = data.target(index)
            for box, label, area in zip(target["boxes"], target["box_labels"], target["box_areas"], strict=True):
                x1, y1, x2, y2 = box.tolist()
                coco["annotations"].append(
                    {
                        "id": len(coco["annotations"]) + 1,
                        "image_id": 1000 - index,
                        "category_id": coco_id(label),
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": float(area),
                        "iscrowd": int(index == indices[1]),
                    }
                )
        (root / f"{split}.json").write_text(json.dumps(coco))
    return root


@pytest.fixture(scope="module")
def detection(runs, folder):
    data = {"format": "coco", "root": str(folder)}
    data |= {split: {"images": f"{split}/images", "annotations": f"{split}.json"} for split in SPLITS}
    head = {"name": "faster_rcnn", "preset": "small", "box_score_thresh": 0.001}
    return runs({**COMMON, "task": "detection", "data": data, "head": head}, base={})


def stats(annotations, results):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def test_map_is_that_of_pycocotools_on_the_exported_file_to_the_last_digit(detection, folder, cli, tmp_path):
    results = tmp_path / "results.json"
    arguments = ("--annotations", folder / "val.json", "--output", results)
    assert cli("predict", detection.directory, folder / "val" / "images", *arguments).exit_code == 0
    rows = json.loads(results.read_text())
    assert {row["image_id"] for row in rows} <= {1000 - index for index in SPLITS["val"]}
    assert {row["category_id"] for row in rows} <= {coco_id(name) for name in "0123456789"}
    assert all(1000 - int(row["file_name"].removesuffix(".png")) == row["image_id"] for row in rows)
    names = ["map", "map_50", "map_75", "map_small", "map_medium", "map_large"]
    names += ["mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"]
    expected = [None if value == -1 else value for value in stats(folder / "val.json", results)]
    assert cli("evaluate", detection.directory).exit_code == 0
    for metrics in (
        detection.summary["metrics"]["val"],
        json.loads((detection.directory / "evaluation-val.json").read_text())["metrics"],
    ):
        assert [metrics[name] for name in names] == expected
    assert expected[8] > 0.01  # it has found something


def test_boxes_are_in_the_pixels_of_the_original_images(detection, folder, cli, tmp_path):
    """The model saw images of another size, filled up to a multiple of 32."""
    results = tmp_path / "results.json"
    cli("predict", detection.directory, folder / "val" / "images", "--output", results)
    truth = json.loads((folder / "val.json").read_text())
    sizes = {image["file_name"]: (image["width"], image["height"]) for image in truth["images"]}
    reach = np.zeros(2)
    for row in json.loads(results.read_text()):
        x, y, width, height = row["bbox"]
        corner = np.array([x + width, y + height])
        assert min(x, y) >= 0
        assert (corner <= np.array(sizes[row["file_name"]]) + 1e-4).all()
        reach = np.maximum(reach, corner)
    assert (reach > 60).all()


@pytest.mark.parametrize(("head", "code"), [({"name": "faster_rcnn", "preset": "small"}, 2), ("retinanet", 0)])
def test_a_loss_that_evaluation_does_not_have_cannot_choose_the_best(head, code, config_file, cli):
    changes = {"data": {"format": "digits", "scenes": SCENES}, "head": head, "train": {**TRAIN, "monitor": "loss"}}
    result = cli("config", "check", config_file({**COMMON, "task": "detection", **changes}), "--build")
    assert result.exit_code == code, result.output
    said = "train.monitor: the head faster_rcnn has no loss in evaluation; choose a metric"
    assert (said in result.output) == (code == 2)


def test_val_pictures_are_written_at_each_evaluation(detection):
    pages = sorted(path.name for path in (detection.directory / "pictures").iterdir())
    assert pages == ["step-00000000", "step-00000006", "step-00000012"], "the start, and each epoch"
    files = sorted((detection.directory / "pictures" / pages[1] / "detection").iterdir())
    assert len(files) == 3
    with Image.open(files[0]) as picture:
        assert picture.width > picture.height


def test_a_run_without_pictures(runs, folder):
    data = {"format": "masks", "root": str(folder), "train": "val", "classes": CLASSES, "ignore": 99}
    train = {**TRAIN, "epochs": 1, "batch_size": 4, "pictures": 0}
    head = {"name": "unet", "channels": [16, 16, 16, 16, 16]}
    run = runs({**COMMON, "task": "segmentation", "data": data, "head": head, "train": train}, base={})
    assert not (run.directory / "pictures").exists()


@pytest.fixture(scope="module")
def segmentation(runs, folder):
    data = {"format": "masks", "root": str(folder), "train": "train", "val": "val", "classes": CLASSES, "ignore": 99}
    head = {"name": "unet", "channels": [32, 16, 16, 16, 16]}
    losses = ["cross_entropy", {"name": "dice", "weight": 0.5}]
    changes = {"task": "segmentation", "data": data, "head": head, "loss": losses, "train": {**TRAIN, "epochs": 2}}
    return runs({**COMMON, **changes}, base={})


def iou_of_files(folder, predictions):
    """Mean IoU over the classes that occur, from the PNGs alone."""
    intersection, union = np.zeros(11), np.zeros(11)
    for file in sorted((folder / "val" / "masks").iterdir()):
        with Image.open(file) as truth, Image.open(predictions / file.name) as predicted:
            truth, predicted = np.array(truth), np.array(predicted)
        assert predicted.shape == truth.shape
        known = truth != 99
        for value in range(11):
            ours, theirs = (predicted == value) & known, (truth == value) & known
            intersection[value] += (ours & theirs).sum()
            union[value] += (ours | theirs).sum()
    return float(np.mean(intersection[union > 0] / union[union > 0]))


def test_mean_iou_is_that_of_the_written_masks(segmentation, folder, cli, tmp_path):
    result = cli("predict", segmentation.directory, folder / "val" / "images", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    expected = iou_of_files(folder, tmp_path / "out" / "segmentation")
    assert segmentation.summary["metrics"]["val"]["mean_iou"] == pytest.approx(expected, rel=1e-12)
    assert expected > 0.05


def test_the_loss_is_the_weighted_sum_of_the_losses(segmentation):
    for line in segmentation.lines("train"):
        parts = line["loss/cross_entropy"] + 0.5 * line["loss/dice"]
        assert line["loss"] == pytest.approx(parts, rel=1e-6)
    assert [loss["weight"] for loss in segmentation.resolved["loss"]] == [1.0, 0.5]


def test_pictures_of_predictions(segmentation, folder, cli, tmp_path):
    images = [folder / "val" / "images" / f"{index}.png" for index in (48, 49)]
    result = cli("predict", segmentation.directory, *images, "--pictures", tmp_path / "drawn")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["48.png", "49.png"]
    assert "2 pictures written to" in result.stderr


def test_windows_change_the_answer_little_and_only_where_images_are_larger(runs, segmentation, folder, cli):
    file = segmentation.directory / "evaluation-val.json"
    values = {}
    for window in (96, 32):
        result = cli("evaluate", segmentation.directory, "--set", f"image.window={window}")
        assert result.exit_code == 0, result.output
        values[window] = json.loads(file.read_text())["metrics"]["mean_iou"]
    assert values[96] == segmentation.summary["metrics"]["val"]["mean_iou"]
    assert values[32] != values[96]


JOINT = {
    "tasks": {
        "find": {"task": "detection", "head": {"name": "faster_rcnn", "preset": "small"}},
        "outline": {"task": "segmentation", "head": {"name": "unet", "channels": [16, 16, 16, 16, 16]}},
        "count": {"task": "regression", "metrics": ["mae"]},
    },
    "data": {"format": "digits", "scenes": SCENES},
    **COMMON,
    "image": {"size": 64},
    "augment": ["HorizontalFlip", {"name": "Affine", "rotate": [-20, 20], "p": 0.5}],
}


def test_three_tasks_run_the_backbone_once_a_batch(runs, monkeypatch):
    from ftengine.protocols import Backbone

    calls = []
    forward = Backbone.forward
    monkeypatch.setattr(Backbone, "forward", lambda self, images: calls.append(len(images)) or forward(self, images))
    run = runs({**JOINT, "train": {**TRAIN, "epochs": 1}}, base={})
    assert calls == [1, 8, 4, *[8] * 6, 8, 4]  # a probe, an evaluation of the start, six steps, an evaluation
    assert {"find/map", "outline/mean_iou", "count/mae"} <= run.summary["metrics"]["val"].keys()
    page = run.directory / "pictures" / "step-00000006"
    assert sorted(path.name for path in page.iterdir()) == ["find", "outline"]


@pytest.mark.slow
def test_a_stopped_joint_run_resumes_to_the_same_weights(runs, cli, monkeypatch):
    """Also the sampling of anchors and proposals is a function of seed and step."""
    from ftengine.track import Tracker

    changes = {**JOINT, "train": {**TRAIN, "epochs": 2}}
    whole = runs(changes, base={})
    advance = Tracker.advance

    def stop(self, step, epoch):
        advance(self, step, epoch)
        if step == 8:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "advance", stop)
        stopped = runs(changes, base={}, exit_code=143)
    assert stopped.checkpoint().name == "step-00000008"
    assert cli("run", "--resume", stopped.directory, "--set", "train.workers=2").exit_code == 0
    assert stopped.bytes() == whole.bytes()
