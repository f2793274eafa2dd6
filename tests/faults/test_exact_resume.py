"""A run that was stopped, wherever and how often, and resumed, ends as one that was not: to the last bit."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image
from same_runs import assert_same

from ftengine.protocols import DatasetContext
from ftengine_datasets.digits import digits
from ftengine_datasets.options import DigitsOptions
from run_configs import merged

AUGMENTED = {
    "head": {"name": "mlp", "hidden": [16], "dropout": 0.5},
    "augment": [{"name": "Affine", "rotate": [-20, 20], "p": 0.7}, {"name": "GaussNoise", "p": 0.5}],
    "train": {"epochs": 3, "log_every": 2},
}
"""Three epochs of three steps; what is logged spans their ends."""
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
TASKS = {"label": {"task": "classification"}, "ink": {"task": "regression", "weight": 0.5}}
DENSE = {
    "head": None,
    "backbone": {"name": "resnet18"},
    "image": {"size": 48, "fit": "shorter"},
    "train": {"epochs": 2, "batch_size": 8},
}
"""Images of three shapes, in batches of like shapes."""
CONFIGS = {
    "adamw, one cycle, ema": {"schedule": {"name": "one_cycle"}, "train": {"ema": 0.9}},
    "sgd, accumulate, clip": {"optimizer": SGD, "train": {"accumulate": 2, "clip_norm": 1.0}},
    "rmsprop, unfreezing": {
        "optimizer": {"name": "rmsprop", "lr": 0.001},
        "freeze": {"name": "acme/first_epochs", "epochs": 2},
    },
    "adamw, step, early stopping": {
        "schedule": {"name": "step", "every_epochs": 1, "warmup_epochs": 1},
        "train": {"epochs": 9, "early_stopping": {"patience": 2, "min_delta": 2}},
    },
    "gradual with warm-up": {"freeze": {"name": "gradual", "epochs_per_stage": None, "warmup_epochs": 0.5}},
    "lp_ft": {"freeze": {"name": "lp_ft", "probe_epochs": 1}, "optimizer": SGD},
    "auto after a probe, near the start": {
        "freeze": {"name": "auto", "probe_epochs": 1, "batches": 2},
        "regularizers": ["l2_sp", "feature_distill"],
    },
    "plateau, swa": {
        "schedule": {"name": "plateau", "patience": 0, "min_delta": 1.0},
        "train": {"swa": {"start": 0.3, "lr": 0.5}},
    },
    "saved every two steps, evaluated every two epochs": {
        "checkpoint": {"every_steps": 2, "keep": 3},
        "train": {"eval_every": 2},
    },
    "mixed": {"mix": {"mixup": 0.4, "cutmix": 1.0, "p": 0.8}},
    "lora": {"adapter": {"name": "lora", "rank": 2}},
    "regression": {"task": "regression", "data": {"targets": ["value", "ink"]}},
    "joint": {"task": None, "head": None, "tasks": TASKS, "data": {"targets": ["ink"]}},
}
OFTEN = [name for name in CONFIGS if name not in ("rmsprop, unfreezing", "gradual with warm-up", "lp_ft", "regression")]
"""Those that are tried by default: the others have their schedules, freezing and tasks from parts of these."""
LONG = {
    "segmentation": {**DENSE, "task": "segmentation"},
    "detection": {**DENSE, "task": "detection", "head": {"name": "faster_rcnn", "preset": "small"}},
}


def steps(lengths):
    """Each step of a run as the only stop; `lengths`: how many steps there are to stop after."""
    return [pytest.param((step,), marks=pytest.mark.slow) for step in range(1, lengths + 1)]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes of digits of three shapes, with boxes in COCO's format and masks; returns the `data` of each task."""
    root = tmp_path_factory.mktemp("scenes")
    data = digits(
        DigitsOptions(scenes={"count": 32, "size": 64, "digits": [1, 3], "digit_size": [20, 32]}),
        DatasetContext("train"),
    )
    coco = {"images": [], "annotations": []}
    coco["categories"] = [{"id": number, "name": name} for number, name in enumerate(data.names["boxes"])]
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for index in range(len(data)):
        margin = ((0, 0), (0, 60), (60, 0))[index % 3]
        image = np.pad(data.image(index), ((0, margin[0]), (0, margin[1]), (0, 0)))
        mask = np.pad(data.mask(index), ((0, margin[0]), (0, margin[1])))
        Image.fromarray(image).save(root / "images" / f"{index}.png")
        Image.fromarray(mask).save(root / "masks" / f"{index}.png")
        size = {"height": mask.shape[0], "width": mask.shape[1]}
        coco["images"].append({"id": index, "file_name": f"{index}.png", **size})
        target = data.target(index)
        for box, label in zip(target["boxes"], target["box_labels"], strict=True):
            x1, y1, x2, y2 = box.tolist()
            place = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            own = {"id": len(coco["annotations"]) + 1, "image_id": index, "category_id": int(label)}
            coco["annotations"].append({**own, **place})
    (root / "boxes.json").write_text(json.dumps(coco))
    common = {"root": str(root), "limit": None, "val_fraction": 0.25}
    boxes = {"images": "images", "annotations": "boxes.json"}
    masks = {"images": "images", "masks": "masks"}
    return {
        "detection": {**common, "format": "coco", "train": boxes},
        "segmentation": {**common, "format": "masks", "train": masks, "classes": ["background", *"0123456789"]},
    }


@pytest.fixture(scope="module")
def whole(runs):
    """The run that is not stopped, made once for each config."""
    made = {}

    def run(changes):
        key = json.dumps(changes, sort_keys=True)
        if key not in made:
            made[key] = runs(changes)
        return made[key]

    return run


def stopped(runs, cli, changes, stops, *more):
    """The same run, stopped after each of `stops`."""
    run = runs(changes, "--stop-after", stops[0], exit_code=143)
    for before, step in itertools.pairwise([*stops, None]):
        assert run.checkpoint().name == f"step-{before:08d}"
        stop = () if step is None else ("--stop-after", step)
        result = cli("run", "--resume", run.directory, *more, *stop)
        assert result.exit_code == (0 if step is None else 143), result.output
    return run


def augmented(changes):
    """`AUGMENTED` with changes, of which those that take a key away stay to be applied."""
    return {**merged(AUGMENTED, changes), **{key: None for key, value in changes.items() if value is None}}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in CONFIGS]
)
@pytest.mark.parametrize("stops", [(2, 3, 7), *steps(9)], ids=str)
def test_every_way_to_train(runs, cli, whole, name, stops):
    """Stopped in the middle of an epoch, at the end of one, and in the middle of the one after the next."""
    changes = augmented(CONFIGS[name])
    reference = whole(changes)
    assert_same(stopped(runs, cli, changes, stops).directory, reference.directory)
    if "early_stopping" in changes["train"]:
        assert reference.summary["epochs"] < changes["train"]["epochs"]
    else:
        assert reference.lines("train")[-1]["step"] == 9


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("stops", [(2, 3, 5), (1,), (4,)], ids=str)
def test_boxes_and_masks_in_batches_of_like_shapes(runs, cli, whole, scenes, name, stops):
    changes = {**augmented(LONG[name]), "data": scenes[name], "head": LONG[name]["head"]}
    assert_same(stopped(runs, cli, changes, stops).directory, whole(changes).directory)


@pytest.mark.parametrize(
    "workers",
    [pytest.param((2, 0), id="two, then none", marks=pytest.mark.slow), pytest.param((0, 2), id="none, then two")],
)
def test_other_workers(runs, cli, whole, workers):
    changes = merged(AUGMENTED, {"train": {"workers": workers[0], "ema": 0.9}})
    run = stopped(runs, cli, changes, (4,), "--set", f"train.workers={workers[1]}")
    assert_same(run.directory, whole(merged(changes, {"train": {"workers": 0}})).directory)


def test_samples_that_were_seen_are_not_read_again(runs, cli, monkeypatch):
    """A resume at 8 of 9 steps reads the last step's samples, and those of the evaluation, and no others."""
    from ftengine_datasets.digits import Digits

    run = runs(AUGMENTED, "--stop-after", "8", exit_code=143)
    read = []
    image = Digits.image
    monkeypatch.setattr(Digits, "image", lambda self, index: read.append(index) or image(self, index))
    assert cli("run", "--resume", run.directory).exit_code == 0
    assert len(read) == len(set(read)) == 16 + 16, "a batch, and the validation split"
