"""``ftengine evaluate`` on data that the run did not have, or no longer has."""

import json
import shutil


def test_a_split_given_by_itself_needs_no_training_data(tmp_path, runs, cli, image_folder):
    data = tmp_path / "data"
    for split in ("train", "val"):
        image_folder(data / split)
    run = runs({"data": {"format": "folder", "root": str(data), "train": "train", "val": "val", "limit": None,
                         "val_fraction": None}, "train": {"batch_size": 6}})  # fmt: skip
    shutil.rmtree(data / "train")
    result = cli("evaluate", run.directory, "--split", "val")
    assert result.exit_code == 0, result.output
    refused = cli("evaluate", run.directory, "--split", "train")
    assert refused.exit_code == 1
    assert str(data / "train") in refused.output


def test_the_training_split_is_without_what_was_held_out_of_it(tmp_path, runs, cli, image_folder):
    image_folder(tmp_path / "train", count=10)
    data = {"format": "folder", "root": str(tmp_path), "train": "train", "val_fraction": 0.3, "test_fraction": 0.2}
    run = runs({"data": {**data, "limit": None}, "metrics": ["confusion_matrix"], "train": {"batch_size": 4}})
    sizes = {}
    for split in ("train", "val", "test"):
        assert cli("evaluate", run.directory, "--split", split).exit_code == 0
        details = json.loads((run.directory / f"evaluation-{split}.json").read_text())["details"]
        sizes[split] = sum(map(sum, details["confusion_matrix"]["matrix"]))
    assert run.result.stdout.count(f"{sizes['train']} train, {sizes['val']} val, {sizes['test']} test") == 1
