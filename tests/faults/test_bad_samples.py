"""Samples that cannot be read: replaced in training, left out of evaluations, listed, and not too many."""

import errno
import json
import shutil

import bad_folders
import numpy as np
import pytest
from bad_folders import BAD, COUNTS, DATA, index_of, label
from PIL import Image

from ftengine import seeding
from ftengine.config import ImageConfig
from ftengine.config_faults import BadSampleConfig
from ftengine.data import Failure, Gap, Item, Split
from ftengine.errors import DataError
from ftengine.holdout import hold_out
from ftengine.loading import LoaderSettings, batches
from ftengine.model import Model
from ftengine.order import TrainOrder, in_order
from ftengine.protocols import Dataset, DatasetContext
from ftengine.protocols.task import stack
from ftengine.quarantine import FILE, Journal, Quarantine, replacement

QUARANTINE = {"policy": "quarantine", "budget": 0.1}
CONFIGS = {
    "classification": {"backbone": {"name": "acme/tiny", "weights": "none"}},
    "regression": {"backbone": {"name": "acme/tiny", "weights": "none"}},
    "detection": {"backbone": {"name": "resnet18", "weights": "none"}, "head": "fcos"},
    "segmentation": {"backbone": {"name": "resnet18", "weights": "none"}, "head": "fcn"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Data of every format, one in ten of whose images cannot be read; and what is said of them."""
    folder = tmp_path_factory.mktemp("bad")
    return folder, bad_folders.files(folder)


@pytest.fixture
def start(runs, root):
    """Starts a run of a task on these data."""

    def run(task="classification", *arguments, exit_code=0, data=None, every_steps=None, **train):
        train = {
            "epochs": 2,
            "batch_size": 10,
            "precision": "fp32",
            "workers": 0,
            "log_every": 1,
            "on_bad_sample": QUARANTINE,
            **train,
        }
        data = {"root": str(root[0]), **DATA[task], **(data or {})}
        config = {"task": task, "data": data, "image": {"size": 32}, **CONFIGS[task], "train": train}
        config["checkpoint"] = {"every_steps": every_steps}
        return runs(config, *arguments, base={}, exit_code=exit_code)

    return run


@pytest.fixture
def seen(monkeypatch):
    """Every batch that a model is given: whether in training, and the batch."""
    calls = []
    forward = Model.forward

    def noting(self, batch, tasks):
        calls.append((self.training, batch))
        return forward(self, batch, tasks)

    monkeypatch.setattr(Model, "forward", noting)
    return calls


def listed(run):
    return [json.loads(line) for line in (run.directory / FILE).read_text().splitlines()]


def says(targets, place, index):
    """Whether the targets of one sample of a batch are those of image `index`."""
    if "label" in targets:
        return targets["label"][place] == label(index)
    if "values" in targets:
        return targets["values"][place, 0] == index
    if "labels" in targets:
        return targets["labels"][place].tolist() == [label(index)]
    mask = targets["mask"][place].unique().tolist()
    return mask == [label(index)]


LARGE = ("detection", "segmentation")


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=pytest.mark.slow) if task in LARGE else task for task in DATA]
)
def test_one_image_in_ten_is_unreadable(start, root, seen, task):
    """The run ends as others do, and whatever it sees is image, target and id of one sample."""
    run = start(task, eval_batch_size=10, epochs=1)
    evaluated = []
    for training, batch in seen:
        pixels = batch.images.numpy()
        for place, (image, name) in enumerate(zip(pixels, batch.ids, strict=True)):
            index = index_of(image)
            assert index == batch.indices[place] or task == "classification"  # sorted by class there
            assert name.endswith(bad_folders.name(index))
            assert all(says(own, place, index) for own in (*batch.targets.values(), *batch.truths.values()))
            assert index not in BAD["train" if training else "val"]
            if not training:
                evaluated.append(index)
        if training:
            assert len(batch) == 10
    good = sorted(set(range(COUNTS["val"])) - set(BAD["val"]))
    assert [sorted(evaluated[at : at + len(good)]) for at in range(0, len(evaluated), len(good))] == [good] * 2
    rows = listed(run)
    assert len({(row["split"], row["id"]) for row in rows}) == len(rows) == 7
    for row in rows:
        index = int(row["id"][-7:-4])
        assert root[1][row["split"]][index] in row["cause"]
        assert row["id"] in row["cause"] or str(root[0]) in row["cause"]
    assert {int(row["id"][-7:-4]) for row in rows if row["split"] == "train"} == set(BAD["train"])
    assert "5 of at most 5 samples of the train split in quarantine" in run.result.stdout


@pytest.fixture(scope="module")
def whole(runs, root):
    """A run of classification that nothing interrupts, with training images that are cut off among the bad ones."""
    return runs(config_of(root[0]), base={})


def config_of(root, **changes):
    train = {"epochs": 2, "batch_size": 10, "precision": "fp32", "workers": 0, "log_every": 1}
    return {
        "task": "classification",
        "data": {"root": str(root), **DATA["classification"]},
        "image": {"size": 16},
        **CONFIGS["classification"],
        "augment": [{"name": "Affine", "rotate": [-20, 20], "p": 0.7}],
        **changes,
        "train": {**train, "on_bad_sample": QUARANTINE, **changes.get("train", {})},
    }


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_workers_do_not_matter(runs, root, whole, workers):
    other = runs(config_of(root[0], train={"workers": workers}), base={})
    assert other.bytes() == whole.bytes()
    assert other.summary["metrics"] == whole.summary["metrics"]
    assert sorted(map(str, listed(other))) == sorted(map(str, listed(whole)))


@pytest.mark.parametrize("at", [1, 4, 5, 9])
def test_a_run_that_was_stopped_ends_with_the_same_bytes(runs, cli, root, whole, trigger, at):
    loss = {"name": "saboteur/failing", "what": "SIGINT", "at": at, "trigger": str(trigger)}
    stopped = runs(config_of(root[0], loss=loss), base={}, exit_code=130)
    (stopped.directory / FILE).open("a").write('{"stream": "", "split": "tr')  # it was killed as it wrote
    trigger.unlink()
    assert cli("run", "--resume", stopped.directory).exit_code == 0
    assert stopped.bytes() == whole.bytes()
    assert stopped.bytes("best") == whole.bytes("best")
    assert stopped.summary["metrics"] == whole.summary["metrics"]
    assert sorted(map(str, listed(stopped))) == sorted(map(str, listed(whole)))


def test_too_many_that_show_at_the_start(start, root):
    run = start(on_bad_sample={"policy": "quarantine", "budget": 0.05}, exit_code=1)
    text = run.result.stderr
    assert "3 of the 50 samples of the train split cannot be read" in text
    assert "more than train.on_bad_sample.budget 0.05 allows (2)" in text
    assert not run.directory.exists()


def test_too_many_that_show_in_the_middle(start, cli):
    """Headers are not checked. With a larger budget the run goes on from where it was, to the same end."""
    few, enough = ({"policy": "quarantine", "budget": number} for number in (4, 5))
    run = start(data={"verify": False}, on_bad_sample=few, exit_code=1, every_steps=1)
    text = run.result.stderr
    assert "5 of the 50 samples of the train split cannot be read" in text
    assert "budget 4 allows (4)" in text
    assert f"all of them: {run.directory / FILE}" in text
    assert f"the last good checkpoint stays: {run.checkpoint()}" in text
    assert [row["split"] for row in listed(run)].count("train") == 5
    assert not (run.directory / "summary.json").exists()
    result = cli("run", "--resume", run.directory, "--set", "train.on_bad_sample.budget=5")
    assert result.exit_code == 0, result.output
    assert run.bytes() == start(data={"verify": False}, on_bad_sample=enough).bytes()


def test_by_default_the_first_one_ends_the_run(start):
    run = start(on_bad_sample="error", exit_code=1)
    assert "cannot read image" in run.result.stderr
    assert "(and 2 others)" in run.result.stderr


def test_evaluation_says_what_it_leaves_out(whole, cli):
    result = cli("evaluate", whole.directory)
    assert result.exit_code == 0
    assert "left out, since they cannot be read: " in result.stdout
    written = json.loads((whole.directory / "evaluation-val.json").read_text())
    assert {int(name[-7:-4]) for name in written["details"]["left out"]} == set(BAD["val"])
    assert written["metrics"] == whole.summary["metrics"]["val"]


def test_metrics_are_those_of_the_others_alone(runs, cli, root, whole, tmp_path):
    """The same model on a folder in which there are no bad images."""
    for index in sorted(set(range(COUNTS["val"])) - set(BAD["val"])):
        folder = tmp_path / bad_folders.CLASSES[label(index)]
        folder.mkdir(exist_ok=True)
        file = f"val-classes/{folder.name}/{bad_folders.name(index)}"
        (folder / bad_folders.name(index)).write_bytes((root[0] / file).read_bytes())
    assert cli("evaluate", whole.directory, "--set", f"data.val={tmp_path}").exit_code == 0
    written = json.loads((whole.directory / "evaluation-val.json").read_text())
    assert "left out" not in written["details"]
    assert written["metrics"] == pytest.approx(whole.summary["metrics"]["val"])


@pytest.mark.parametrize("workers", [0, 2])
def test_predict_goes_on_without_them_where_that_is_wanted(whole, cli, root, workers, tmp_path):
    folder, out = root[0] / "val-classes", tmp_path / "out.csv"
    arguments = ("predict", whole.directory, folder, "--set", f"train.workers={workers}", "--output", out)
    result = cli(*arguments)
    assert result.exit_code == 1
    assert "predict: cannot read image " in result.stderr
    assert not out.exists()
    result = cli(*arguments, "--skip-unreadable", "--set", "train.eval_batch_size=3")
    assert result.exit_code == 0
    for index in BAD["val"]:
        file = folder / bad_folders.CLASSES[label(index)] / bad_folders.name(index)
        assert f"left out: cannot read image {file}: " in result.stderr
    rows = out.read_text().splitlines()[1:]
    good = sorted(set(range(COUNTS["val"])) - set(BAD["val"]), key=lambda index: (label(index), index))
    assert [int(row.partition(",")[0][-7:-4]) for row in rows] == good
    (tmp_path / "a.png").write_bytes(b"")
    result = cli("predict", whole.directory, tmp_path / "a.png", "--skip-unreadable")
    assert result.exit_code == 1
    assert f"none of 1 images can be read; the first: cannot read image {tmp_path}/a.png" in result.stderr


def write_yolo(root):
    """Boxes as fractions: in pixels they depend on the images' sizes."""
    for split in COUNTS:
        labels = root / split / "labels"
        labels.mkdir()
        for index in range(COUNTS[split]):
            (labels / bad_folders.name(index)).with_suffix(".txt").write_text(f"{label(index)} 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("names: [a, b, c]\ntrain: train/images\nval: val/images\n")


@pytest.mark.parametrize(
    "task",
    [
        "classification",
        pytest.param("detection", marks=pytest.mark.slow),
        pytest.param("segmentation", marks=pytest.mark.slow),
    ],
)
def test_a_file_that_vanishes_between_the_parts_of_a_run(runs, cli, tmp_path, task):
    """What its target is can then not be known any more, and the data are the same all the same."""
    bad_folders.files(tmp_path, spoiled=False)
    data = {"root": str(tmp_path), **DATA[task]}
    if task == "detection":
        write_yolo(tmp_path)
        data = {"root": str(tmp_path), "format": "yolo"}
    config = {**config_of(tmp_path), "task": task, "data": data, "augment": [], **CONFIGS[task]}
    config["image"]["size"] = 32
    config["train"]["epochs"] = 1
    run = runs(config, "--stop-after", "2", base={}, exit_code=143)
    assert not (run.directory / FILE).exists()
    place = "train-classes/a" if task == "classification" else "train/images"
    (tmp_path / place / bad_folders.name(9)).write_bytes(b"")
    if task == "segmentation":
        (tmp_path / "train" / "masks" / bad_folders.name(12)).write_bytes(b"")
    assert cli("run", "--resume", run.directory).exit_code == 0
    lost = {"009.png", "012.png"} if task == "segmentation" else {"009.png"}
    assert {row["id"][-7:] for row in listed(run)} == lost


def test_a_target_that_changes_is_no_such_file(runs, cli, tmp_path):
    bad_folders.files(tmp_path, spoiled=False)
    config = {**config_of(tmp_path), "task": "regression", "data": {"root": str(tmp_path), **DATA["regression"]}}
    run = runs(config, "--stop-after", "2", base={}, exit_code=143)
    (tmp_path / "train" / "images" / bad_folders.name(9)).unlink()
    table = (tmp_path / "train.csv").read_text()
    (tmp_path / "train.csv").write_text(table.replace("010.png,10", "010.png,11"))
    result = cli("run", "--resume", run.directory)
    assert result.exit_code == 1
    assert "1 with another target: train/images/010.png" in result.stderr
    (tmp_path / "train.csv").write_text(table)
    assert cli("run", "--resume", run.directory).exit_code == 0
    assert [row["id"] for row in listed(run)] == ["train/images/009.png"]


def dataset(root, name, *, tolerant):
    """The training split of the data in `root` in one of the formats."""
    from ftengine_datasets import annotation_options, coco, csv_file, folder, masks, options, voc, yolo

    kinds = {
        "folder": (folder.folder, options.FolderOptions, DATA["classification"]),
        "csv": (csv_file.csv_file, options.CsvOptions, DATA["regression"]),
        "coco": (coco.coco, annotation_options.CocoOptions, DATA["detection"]),
        "masks": (masks.masks, annotation_options.MaskOptions, DATA["segmentation"]),
        "yolo": (yolo.yolo, annotation_options.YoloOptions, {}),
        "voc": (voc.voc, annotation_options.VocOptions, {"train": "train.txt", "images": "train/images"}),
    }
    factory, model, given = kinds[name]
    given = {key: value for key, value in given.items() if key != "format"}
    return factory(model(root=root, **given), DatasetContext("train", tolerant))


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    """The same data, whole and with images that cannot be read, in all formats."""
    folders = {}
    for state in ("whole", "bad"):
        top = folders[state] = tmp_path_factory.mktemp(state)
        bad_folders.files(top, spoiled=state == "bad")
        write_yolo(top)
        (top / "Annotations").mkdir()
        names = [bad_folders.name(index).removesuffix(".png") for index in range(COUNTS["train"])]
        (top / "train.txt").write_text("\n".join(names))
        for index, name in enumerate(names):
            box = "<xmin>7</xmin><ymin>7</ymin><xmax>18</xmax><ymax>18</ymax>"
            thing = f"<object><name>{bad_folders.CLASSES[label(index)]}</name><bndbox>{box}</bndbox></object>"
            (top / "Annotations" / f"{name}.xml").write_text(f"<annotation>{thing}</annotation>")
    return folders


@pytest.mark.parametrize("name", ["folder", "csv", "coco", "masks", "yolo", "voc"])
def test_a_tolerant_dataset_is_the_same_but_for_what_it_says(formats, name):
    with pytest.raises(DataError, match="cannot read image"):
        dataset(formats["bad"], name, tolerant=False)
    bad, whole = (dataset(formats[state], name, tolerant=True) for state in ("bad", "whole"))
    assert whole.unreadable == {}
    assert [bad.sample_id(i) for i in range(len(bad))] == [whole.sample_id(i) for i in range(len(whole))]
    assert bad.names == whole.names
    found = {int(bad.sample_id(index)[-7:-4]): cause for index, cause in bad.unreadable.items()}
    assert set(found) == {3, 22, 37}  # of the others that are spoiled the header is whole
    for index, cause in found.items():
        assert "cannot read image" in cause
        assert bad_folders.name(index) in cause
    for index in set(range(len(bad))) - set(bad.unreadable):
        assert repr(bad.target(index)) == repr(whole.target(index))
        assert bad.size(index) == whole.size(index)
    if "boxes" in bad.names:  # what the files say of them still counts
        assert all(len(bad.target(index)["box_labels"]) == 1 for index in bad.unreadable)
    rest, held = hold_out(bad, 0.5, 0, None, "val")
    assert {part.sample_id(index) for part in (rest, held) for index in part.unreadable} == {
        bad.sample_id(index) for index in bad.unreadable
    }


def test_masks_of_another_size_or_with_other_values(formats, tmp_path):
    shutil.copytree(formats["whole"] / "train", tmp_path / "train")
    folder = tmp_path / "train" / "masks"
    Image.new("L", (24, 25)).save(folder / bad_folders.name(5))
    Image.new("L", (24, 24), 77).save(folder / bad_folders.name(6))
    (folder / bad_folders.name(7)).write_bytes(b"")
    data = dataset(tmp_path, "masks", tolerant=True)
    assert {index: cause.split(": ")[-1].split(" ")[0] for index, cause in data.unreadable.items()} == {
        5: "mask",
        6: "value",
        7: "the",
    }
    with pytest.raises(DataError, match="3 problems"):
        dataset(tmp_path, "masks", tolerant=False)


# --- samples and batches ---------------------------------------------------------------------------------------------


class Numbers(Dataset):
    """Grey images with their index in every pixel, some of which cannot be had; `reads` counts the attempts."""

    names = {"label": ("even", "odd")}  # noqa: RUF012

    def __init__(self, length, bad, error=ZeroDivisionError):
        self.length, self.bad, self.error = length, set(bad), error
        self.reads = []

    def __len__(self):
        return self.length

    def target(self, index):
        return {"label": index % 2}

    def sample_id(self, index):
        return f"n{index}"

    def image(self, index):
        self.reads.append(index)
        if index in self.bad:
            raise self.error("it broke")
        return np.full((8, 8, 3), index, np.uint8)


class Masked(Numbers):
    """The masks of the bad ones are of another size."""

    names = {"mask": ("even", "odd")}  # noqa: RUF012

    def image(self, index):
        return np.full((8, 8, 3), index, np.uint8)

    def mask(self, index):
        return np.full((8, 9 if index in self.bad else 8), index % 2, np.uint8)


def encode(target):
    return {name: np.asarray(value) for name, value in target.items()}


def split_of(data, *, training=True, budget=0.5, augmentation=None, seed=3):
    config = ImageConfig.model_validate({"size": 8, "fit": "crop"})
    made = Quarantine("", "train", len(data), BadSampleConfig(policy="quarantine", budget=budget))
    options = {"training": training, "quarantine": made}
    return Split(data, {"a": encode}, {"a": stack}, config, frozenset(data.names), augmentation, seed, "s", **options)


@pytest.mark.parametrize("data", [Numbers(20, range(0, 20, 4)), Masked(20, range(0, 20, 4))], ids=["image", "mask"])
def test_the_one_in_its_place_is_whole(data):
    split = split_of(data)
    for epoch, index in [(epoch, index) for epoch in range(3) for index in range(20)]:
        item = split[(epoch, index)]
        assert isinstance(item, Item)
        assert item.index not in data.bad
        assert (item.index == index) == (index not in data.bad)
        assert item.id == f"n{item.index}"
        assert (item.image == item.index).all()
        value = item.targets["a"]["label"]
        assert value == item.index % 2
        assert {sample.index for sample in item.bad} <= data.bad


def test_which_one_it_is_depends_on_seed_epoch_index_and_attempt_alone():
    data = Numbers(40, range(0, 40, 2))
    keys = [(epoch, index) for epoch in range(4) for index in range(40)]
    first = [split_of(data)[key].index for key in keys]
    split = split_of(data)
    for key in reversed(keys):  # whatever it has met before
        split[key]
    assert [split[key].index for key in keys] == first
    assert [split_of(data, seed=4)[key].index for key in keys] != first
    by_epoch = [first[40 * epoch : 40 * epoch + 40] for epoch in range(4)]
    assert len(set(map(tuple, by_epoch))) == 4
    for key, index in zip(keys, first, strict=True):
        tried = first_readable(key, data)
        assert index == tried


def first_readable(key, data):
    """The first of the candidates for a place that can be read."""
    epoch, index = key
    attempt = 0
    while index in data.bad:
        attempt += 1
        index = replacement(3, "s", epoch, key[1], attempt, len(data))
    return index


def test_its_augmentation_is_that_of_the_place():
    """Its own use in the same epoch is seen in another way."""
    seeds = {}

    def note(scene, seed):
        seeds[seed] = int(scene.image[0, 0, 0])
        return scene

    data = Numbers(20, [4])
    item = split_of(data, augmentation=note)[(1, 4)]
    assert seeds == {seeding.derive(3, "augment", "s", 1, 4): item.index}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ESTALE])
def test_what_the_machine_cannot_read_now_is_not_put_away(number):
    def image(index):
        try:
            raise OSError(number, "it may go another time")
        except OSError as error:
            raise DataError(f"cannot read image {index}") from error

    data = Numbers(20, [])
    data.image = image
    split = split_of(data)
    assert split[(0, 3)] == Failure("cannot read image 3")
    assert split.quarantine.known == {}


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_leaves_them_out(workers):
    data = Numbers(12, [0, 1, 2, 7])
    split = split_of(data, training=False)
    made = list(batches(split, in_order(12, 3), LoaderSettings(workers)))
    assert [batch.indices for batch in made] == [[3, 4, 5], [6, 8], [9, 10, 11]]  # the first batch is empty
    for batch in made:
        assert batch.ids == [f"n{index}" for index in batch.indices]
        assert batch.images[:, 0, 0, 0].tolist() == batch.indices
        assert batch.truths["a"]["label"].tolist() == [index % 2 for index in batch.indices]
    assert list(split.quarantine.noted) == [0, 1, 2, 7]
    assert split.quarantine.noted[7].cause == "sample n7: ZeroDivisionError: it broke"


@pytest.mark.parametrize("workers", [0, 2])
def test_the_main_process_stops_over_the_budget(workers):
    data = Numbers(20, [3, 11, 17])
    split = split_of(data, budget=0.1)
    order = TrainOrder(20, 5, 3, "s", 0, 40)
    with pytest.raises(DataError, match=r"3 of the 20 samples of the train split.*budget 0\.1 allows \(2\)"):
        list(batches(split, order, LoaderSettings(workers)))


def test_what_is_known_is_not_read_again():
    data = Numbers(10, [2, 5])
    split = split_of(data)
    for epoch in range(5):
        for index in range(10):
            split[(epoch, index)]
    assert [data.reads.count(index) for index in (2, 5)] == [1, 1]


def test_where_none_can_be_read():
    failure = split_of(Numbers(10, range(10)))[(0, 4)]
    assert isinstance(failure, Failure)
    assert "no readable sample was found to take its place" in failure.message
    assert isinstance(split_of(Numbers(10, [4]), training=False)[(0, 4)], Gap)


def test_what_an_augmentation_does_is_no_fault_of_the_sample():
    def broken(scene, seed):
        raise DataError("the crop is larger than the image")

    failure = split_of(Numbers(10, []), augmentation=broken)[(0, 4)]
    assert failure == Failure("sample n4: the crop is larger than the image")


# --- budget and list -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("budget", "length", "allowed"), [(0.07, 100, 7), (0.01, 99, 0), (1, 5, 1), (30, 5, 30)])
def test_the_budget_is_a_share_or_a_number(budget, length, allowed):
    assert Quarantine("", "train", length, BadSampleConfig(policy="quarantine", budget=budget)).allowed == allowed


def test_the_list_is_taken_up_again(tmp_path):
    said = []

    def opened(split="train"):
        made = Quarantine("", split, 20, BadSampleConfig(policy="quarantine", budget=5))
        made.open(Journal(tmp_path, said.append))
        return made

    data = Numbers(20, range(4))
    sample = [split_of(data)[(0, index)].bad[0] for index in range(4)]
    opened().add(sample[:2])
    opened("val").add(sample[2:3])
    lines = (tmp_path / FILE).read_text().splitlines()
    assert json.loads(lines[0]) == {
        "stream": "",
        "split": "train",
        "index": 0,
        "id": "n0",
        "cause": "sample n0: ZeroDivisionError: it broke",
    }
    for torn in (
        "",
        '{"stream": "',
        '{"stream": "", "split": "train", "index": "1", "id": "n1", "cause": ""}\n',
        "[]\n",
    ):
        (tmp_path / FILE).write_text("\n".join(lines) + "\n" + torn)
        again = opened()
        assert again.noted == {number: sample[number] for number in (0, 1)} == again.known
        again.add(sample[:2])
        assert (tmp_path / FILE).read_text().splitlines() == lines
    again.add(sample[3:])
    assert len((tmp_path / FILE).read_text().splitlines()) == 4
    assert said[-1] == "3 of at most 5 samples of the train split in quarantine: n3: " + sample[3].cause


class Shared:
    """One of two processes; `others` is what the other one hands over."""

    size = 2

    def __init__(self, rank, others):
        self.main, self.rank, self.others = rank == 0, rank, others

    def from_main(self, make):
        return make() if self.main else []

    def gather(self, value):
        return [value, self.others] if self.main else [self.others, value]


def test_processes_tell_each_other(tmp_path):
    """Both have the whole list, the first one writes it, and both stop over the budget."""
    data = Numbers(20, range(6))
    sample = [split_of(data)[(0, index)].bad[0] for index in range(6)]
    for rank, own, others in [(0, sample[:2], sample[1:4]), (1, sample[1:4], sample[:2])]:
        said = []
        made = Quarantine("", "train", 20, BadSampleConfig(policy="quarantine", budget=4))
        world = Shared(rank, [others])
        journal = Journal(tmp_path / str(rank), said.append, world)
        journal.file.parent.mkdir()
        journal.follow(made)
        made.add(own)
        journal.share()
        assert made.noted == {index: sample[index] for index in range(4)}
        assert journal.file.exists() == (rank == 0)
        world.others = [[]]
        before = journal.file.read_bytes() if rank == 0 else b""
        journal.share()  # there is nothing new
        assert (journal.file.read_bytes() if rank == 0 else b"") == before
        world.others = [sample[5:]]
        with pytest.raises(DataError, match="5 of the 20 samples"):
            journal.share()
    assert len((tmp_path / "0" / FILE).read_text().splitlines()) == 5
