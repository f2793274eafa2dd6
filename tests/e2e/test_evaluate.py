"""``ftengine evaluate`` on data that the run did not have, or no longer has."""

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
