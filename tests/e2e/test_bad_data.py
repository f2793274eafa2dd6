"""What a user sees when the data do not fit: the file, the column, the class, the sample; nothing is trained."""

import pytest
import yaml

BASE = {
    "task": "classification",
    "image": {"size": 16},
    "backbone": {"name": "acme/tiny", "weights": "none"},
    "train": {"epochs": 1, "batch_size": 4, "precision": "fp32"},
}


@pytest.fixture
def refused(cli, third_party, tmp_path):
    """Runs on `data`, which live in tmp_path; expects exit code 1 and nothing written; returns what stderr says."""

    def run(data, **changes):
        file = tmp_path / "c.yaml"
        file.write_text(yaml.safe_dump({**BASE, "data": {"root": str(tmp_path), **data}, **changes}))
        result = cli("run", "--config", file, "--output", tmp_path / "run")
        assert result.exit_code == 1, result.output
        assert result.stderr.startswith("Error: ")
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "run" / "checkpoints").exists()
        return result.stderr

    return run


def test_missing_folder(refused, image_folder, tmp_path):
    image_folder(tmp_path / "train")
    assert f"train: no folder {tmp_path}/trian; did you mean {tmp_path}/train?" in refused(
        {"format": "folder", "train": "trian"}
    )
    assert f"val: no folder {tmp_path}/a/b; only {tmp_path} exists of it" in refused(
        {"format": "folder", "train": "train", "val": "a/b"}
    )


def test_empty_class_folder(refused, image_folder, tmp_path):
    (image_folder(tmp_path / "train") / "yellow").mkdir()
    assert f"train: class folder is empty in {tmp_path}/train: yellow" in refused(
        {"format": "folder", "train": "train"}
    )


def test_class_in_val_that_train_lacks(refused, image_folder, tmp_path):
    image_folder(tmp_path / "train", classes=("red", "green"))
    image_folder(tmp_path / "val", classes=("red", "blue"))
    text = refused({"format": "folder", "train": "train", "val": "val"})
    assert "the val split has a class that the training split lacks: blue" in text
    assert "the training split's classes: green, red" in text


def test_unreadable_images_are_named_with_the_count_of_others(refused, image_folder, tmp_path):
    folder = image_folder(tmp_path / "train")
    (folder / "green" / "1.png").write_bytes(b"no image")
    (folder / "green" / "2.png").write_bytes(b"")
    (folder / "red" / "0.png").write_bytes(b"GIF")
    text = refused({"format": "folder", "train": "train"})
    assert f"train: cannot read image {folder}/green/1.png: not an image of a known format" in text
    assert text.rstrip().endswith("(and 2 others)")


def test_image_that_is_cut_off(refused, image_folder, tmp_path):
    """Its header is whole, so it shows only when it is read."""
    for file in image_folder(tmp_path / "train").glob("*/*.png"):
        file.write_bytes(file.read_bytes()[:200])
    text = refused({"format": "folder", "train": "train"})
    assert "cannot read image" in text
    assert "truncated" in text


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_image_in_a_worker(refused, image_folder, tmp_path, workers):
    for file in image_folder(tmp_path / "train").glob("*/*.png"):
        file.write_bytes(b"no image")
    train = {**BASE["train"], "workers": workers}
    text = refused({"format": "folder", "train": "train", "verify": False}, train=train)
    assert f"Error: cannot read image {tmp_path}/train/" in text


def table(folder, header, *rows):
    (folder / "t.csv").write_text("\n".join([header, *rows]) + "\n")


REGRESSION = {"format": "csv", "train": "t.csv", "targets": ["price"]}


def test_missing_column(refused, tmp_path):
    table(tmp_path, "image,price", "a.png,1")
    text = refused({**REGRESSION, "targets": ["prize"]}, task="regression")
    assert f"{tmp_path}/t.csv: unknown column 'prize'; did you mean 'price'?; its header: image, price" in text
    text = refused({**REGRESSION, "image": "file"}, task="regression")
    assert "unknown column 'file'" in text


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["1", "x", "", "4"], "t.csv:3: column 'price': 'x' is not a number (and 1 other cell)"),
        (["1", "", "3", "4"], "t.csv:3: column 'price': is empty; expected a number"),
        (["nan", "2", "3", "4"], "t.csv:2: column 'price': 'nan' is not a finite float32 number"),
        (["1", "2", "3", "1e99"], "t.csv:5: column 'price': '1e99' is not a finite float32 number"),
    ],
)
def test_targets_that_are_missing_or_no_numbers(refused, tmp_path, cells, message):
    table(tmp_path, "image,price", *(f"{index}.png,{cell}" for index, cell in enumerate(cells)))
    assert message in refused(REGRESSION, task="regression")


def test_target_out_of_the_transform_s_range(refused, write_image, tmp_path):
    for index in range(8):
        write_image(tmp_path / f"{index}.png")
    table(tmp_path, "image,price", *(f"{index}.png,{index}" for index in range(8)))
    text = refused(REGRESSION, task={"name": "regression", "transform": "log"})
    assert "sample '0.png': target 'price' is 0; transform log needs values above 0" in text


def test_image_of_a_row_that_is_not_there(refused, write_image, tmp_path):
    write_image(tmp_path / "0.png")
    table(tmp_path, "image,price", "0.png,1", "1.png,2", "2.png,3")
    text = refused(REGRESSION, task="regression")
    assert f"cannot read image {tmp_path}/1.png: no such file (and 1 other)" in text


def test_fewer_samples_than_a_batch(refused, image_folder, tmp_path):
    image_folder(tmp_path / "train", count=2)
    text = refused({"format": "folder", "train": "train"}, train={**BASE["train"], "batch_size": 32})
    assert "the training split has 5 samples, fewer than train.batch_size 32" in text


def test_one_sample_cannot_be_split(refused, image_folder, tmp_path):
    image_folder(tmp_path / "train", count=1)
    text = refused({"format": "folder", "train": "train", "val_fraction": 0.01})
    assert "val_fraction 0.01 of 3 samples leaves no sample on one side" in text


def test_output_that_is_not_empty(cli, config_file, third_party, tmp_path):
    output = tmp_path / "full"
    output.mkdir()
    (output / "thesis.txt").write_text("mine")
    result = cli("run", "--config", config_file(), "--output", output)
    assert result.exit_code == 1
    assert f"--output {output}: exists and is not an empty folder" in result.stderr
    assert [entry.name for entry in output.iterdir()] == ["thesis.txt"]


def test_output_that_is_a_file(cli, config_file, third_party, tmp_path):
    (tmp_path / "out").write_text("mine")
    result = cli("run", "--config", config_file(), "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert f"--output {tmp_path / 'out'}: is a file; give a folder" in result.stderr
    assert (tmp_path / "out").read_text() == "mine"
