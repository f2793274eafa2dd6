"""Runs on CSV tables and folders: tags, several numbers, held-out splits, statistics of the training split only."""

import json
from collections import Counter

import numpy as np
import pytest

SMALL = {"train": {"batch_size": 8}}


def write_table(folder, name, header, rows, write_image):
    lines = [header]
    for index, cells in enumerate(rows):
        write_image(folder / f"{name}-{index}.png", colour=(index * 9 % 255, 100, 100), seed=index)
        lines.append(",".join([f"{name}-{index}.png", *map(str, cells)]))
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


def csv_data(folder, **options):
    return {"format": "csv", "root": str(folder), "limit": None, **options}


def test_multi_label(runs, cli, write_image, tmp_path):
    tags = ["cat", "cat;dog", "dog;bird", "", "bird", "cat;bird"] * 5
    write_table(tmp_path, "train", "image,tags", [[tag] for tag in tags], write_image)
    run = runs({**SMALL, "data": csv_data(tmp_path, train="train.csv", labels="tags")})
    assert {"f1", "auroc", "loss"} <= run.summary["metrics"]["val"].keys()
    assert run.lines("train")[0].keys() >= {"loss/binary_cross_entropy"}
    state = json.loads((run.checkpoint() / "state.json").read_text())["tasks"]["classification"]
    assert state["names"] == ["bird", "cat", "dog"]
    result = cli("predict", run.directory, tmp_path / "train-0.png", "--output", tmp_path / "rows.json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert set(filter(None, row["labels"].split(";"))) == {
        name for name in ("bird", "cat", "dog") if row[f"p({name})"] >= 0.5
    }
    assert all(0 < row[f"p({name})"] < 1 for name in ("bird", "cat", "dog"))


def test_a_loss_for_one_class_does_not_take_tags(config_file, cli, third_party, tmp_path):
    data = csv_data(tmp_path, train="train.csv", labels="tags")
    result = cli("config", "check", config_file({"data": data, "loss": "cross_entropy", "metrics": ["top_k"]}))
    assert result.exit_code == 2
    assert (
        "loss: cross_entropy learns from label, but the data give `labels`; fitting: binary_cross_entropy, focal"
        in (result.stderr)
    )
    assert "metrics[0]: top_k measures label, but the data give `labels`" in result.stderr


def test_regression_of_several_columns_with_statistics_of_the_training_split(runs, write_image, tmp_path):
    train = [(i, 100.0 + i) for i in range(16)]
    val = [(1000 + i, 5.0) for i in range(8)]
    write_table(tmp_path, "train", "image,a,b", train, write_image)
    write_table(tmp_path, "val", "image,a,b", val, write_image)
    data = csv_data(tmp_path, train="train.csv", val="val.csv", targets=["b", "a"], val_fraction=None)
    run = runs({**SMALL, "task": "regression", "data": data})
    state = json.loads((run.checkpoint() / "state.json").read_text())["tasks"]["regression"]
    assert state["names"] == ["b", "a"]
    assert state["mean"] == pytest.approx([107.5, 7.5])
    assert state["std"] == pytest.approx([np.std(range(16))] * 2)
    values = run.summary["metrics"]["val"]
    assert {"mae", "mae/a", "mae/b", "rmse", "r2"} <= values.keys()
    assert values["mae/a"] > 900, "in original units"


def ids_of_splits(run):
    """The sample ids of each split of a run, as its own code gives them."""
    from ftengine.build import make_splits, make_tasks
    from ftengine.resolve import resolve
    from ftengine.run_config import run_document

    plan = resolve(run_document(run.directory))
    splits = make_splits(plan, "data", make_tasks(plan))
    return {
        name: [(data.sample_id(i), data.target(i)) for i in range(len(data))]
        for name, data in (("train", splits.train), ("val", splits.val), ("test", splits.test))
    }


def test_held_out_splits_are_disjoint_whole_and_stratified(runs, write_image, tmp_path):
    for name, count in (("common", 40), ("rare", 10), ("usual", 20)):
        for index in range(count):
            write_image(tmp_path / "all" / name / f"{index}.png", seed=index)
    data = {"format": "folder", "root": str(tmp_path), "train": "all", "limit": None}
    fractions = {"val_fraction": 0.25, "test_fraction": 0.2}
    first = runs({**SMALL, "data": {**data, **fractions}})
    splits = ids_of_splits(first)
    ids = {name: {identity for identity, _ in samples} for name, samples in splits.items()}
    assert sum(map(len, ids.values())) == 70
    assert len(set().union(*ids.values())) == 70, "no sample is in two splits"
    counts = {name: Counter(identity.split("/")[1] for identity, _ in samples) for name, samples in splits.items()}
    assert counts["test"] == {"common": 8, "usual": 4, "rare": 2}
    assert counts["val"] == {"common": 10, "usual": 5, "rare": 3}
    assert counts["train"] == {"common": 22, "usual": 11, "rare": 5}
    other = ids_of_splits(runs({**SMALL, "data": {**data, **fractions}, "train": {"batch_size": 8, "seed": 3}}))
    assert other["val"] == splits["val"], "the split does not depend on the run's seed"
    moved = ids_of_splits(runs({**SMALL, "data": {**data, **fractions, "split_seed": 1}}))
    assert {identity for identity, _ in moved["val"]} != ids["val"]


def test_a_label_map_that_is_written_in_another_order(runs, cli, image_folder, tmp_path):
    """A val split that lacks a class keeps the training split's indices."""
    image_folder(tmp_path / "train", count=8)
    image_folder(tmp_path / "val", count=4, classes=("red", "green"))
    data = {"format": "folder", "root": str(tmp_path), "train": "train", "val": "val", "limit": None}
    run = runs({"data": {**data, "val_fraction": None}, "train": {"epochs": 8}, "optimizer": {"lr": 0.02}})
    assert run.summary["metrics"]["val"]["accuracy"] == 1
    result = cli("evaluate", run.directory, "--set", f"data.val={tmp_path / 'train'}")
    assert result.exit_code == 0, result.output
    measured = json.loads((run.directory / "evaluation-val.json").read_text())
    assert measured["metrics"]["accuracy"] == 1
