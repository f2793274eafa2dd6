"""``ftengine predict``: which images, in which order, and what is said of them."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(scope="module")
def colours(runs, image_folder, tmp_path_factory):
    """A classifier of red, green and blue images, and the folder of its images."""
    root = tmp_path_factory.mktemp("colours")
    image_folder(root / "train", count=12)
    data = {"format": "folder", "root": str(root), "train": "train", "limit": None}
    return runs({"data": data, "train": {"epochs": 6}, "optimizer": {"lr": 0.02}}), root / "train"


def table(result):
    assert result.exit_code == 0, result.output
    return list(csv.DictReader(io.StringIO(result.stdout)))


def images(rows):
    return [row["image"] for row in rows]


def test_probabilities_of_right_answers(colours, cli):
    run, folder = colours
    assert run.summary["metrics"]["val"]["accuracy"] == 1
    rows = table(cli("predict", run.directory, folder))
    assert len(rows) == 36
    for row in rows:
        probabilities = {name: float(row[f"p({name})"]) for name in ("blue", "green", "red")}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(probabilities, key=probabilities.get) == row["image"].split("/")[-2]
        assert float(row["score"]) == probabilities[row["label"]]


def test_folders_globs_and_files_each_once_and_in_order(colours, cli):
    run, folder = colours
    single = folder / "red" / "3.png"
    rows = table(cli("predict", run.directory, single, folder / "blue", f"{folder}/*/1*.png", single))
    blue = sorted(str(path) for path in (folder / "blue").iterdir())
    rest = [str(folder / name / file) for name in ("green", "red") for file in ("1.png", "10.png", "11.png")]
    assert images(rows) == [str(single), *blue, *rest]


def test_output_files(colours, cli, tmp_path):
    run, folder = colours
    printed = cli("predict", run.directory, folder / "red").stdout
    for name in ("rows.csv", "deep/rows.json"):
        result = cli("predict", run.directory, folder / "red", "--output", tmp_path / name)
        assert result.exit_code == 0
        assert result.stdout == ""
        assert f"12 predictions written to {tmp_path / name}" in result.stderr
    assert (tmp_path / "rows.csv").read_text() == printed
    rows = json.loads((tmp_path / "deep" / "rows.json").read_text())
    assert [{key: str(value) for key, value in row.items()} for row in rows] == list(
        csv.DictReader(io.StringIO(printed))
    )
    result = cli("predict", run.directory, folder, "--output", tmp_path / "rows.xlsx")
    assert result.exit_code == 2
    assert "expected a name that ends in .csv or .json" in result.stderr


def test_unreadable_images_are_named_and_nothing_is_written(colours, cli, tmp_path, write_image):
    run, _ = colours
    write_image(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no image")
    (tmp_path / "in" / "c.png").write_bytes(b"")
    result = cli("predict", run.directory, tmp_path / "in", "--output", tmp_path / "out.csv")
    assert result.exit_code == 1
    assert f"cannot read image {tmp_path}/in/b.png: not an image of a known format" in result.stderr
    assert "(and 1 other)" in result.stderr
    assert not (tmp_path / "out.csv").exists()


def test_pictures_go_into_a_folder(colours, cli, tmp_path):
    run, folder = colours
    (tmp_path / "notes").write_text("")
    result = cli("predict", run.directory, folder / "red", "--pictures", tmp_path / "notes")
    assert result.exit_code == 2
    assert f"{tmp_path / 'notes'}' is a file" in result.stderr


def test_paths_without_images(colours, cli, tmp_path, write_image):
    run, _ = colours
    write_image(tmp_path / "cat.png")
    assert "did you mean 'cat.png'?" in cli("predict", run.directory, tmp_path / "cta.png").stderr
    (tmp_path / "empty").mkdir()
    result = cli("predict", run.directory, tmp_path / "empty")
    assert result.exit_code == 1
    assert "no images in this folder" in result.stderr


def test_orientation_of_photos(colours, cli, tmp_path):
    """A photo that is stored on its side, with an EXIF note, is seen as the same photo stored upright."""
    run, _ = colours
    upright = np.zeros((24, 24, 3), np.uint8)
    upright[:12] = (200, 40, 40)
    upright[12:, :12] = (40, 40, 200)
    Image.fromarray(upright).save(tmp_path / "upright.png")
    noted = Image.Exif()
    noted[0x0112] = 6  # rotate by 90 degrees clockwise to see it upright
    Image.fromarray(np.rot90(upright)).save(tmp_path / "noted.png", exif=noted)
    Image.fromarray(np.rot90(upright)).save(tmp_path / "lying.png")
    rows = table(cli("predict", run.directory, *(tmp_path / f"{name}.png" for name in ("upright", "noted", "lying"))))
    values = [{key: value for key, value in row.items() if key != "image"} for row in rows]
    assert values[0] == values[1]
    assert values[0] != values[2]


def test_grey_and_transparent_images(colours, cli, tmp_path):
    run, _ = colours
    Image.new("L", (20, 20), 100).save(tmp_path / "grey.png")
    Image.new("RGB", (20, 20), (100, 100, 100)).save(tmp_path / "colour.png")
    Image.new("RGBA", (20, 20), (100, 100, 100, 255)).save(tmp_path / "opaque.png")
    rows = table(cli("predict", run.directory, tmp_path))
    assert len({tuple(value for key, value in row.items() if key != "image") for row in rows}) == 1


def test_the_size_of_batches_does_not_matter(colours, cli):
    run, folder = colours
    rows = [
        table(cli("predict", run.directory, folder, "--set", f"train.eval_batch_size={size}")) for size in (1, 7, 36)
    ]
    for other in rows[1:]:
        assert images(other) == images(rows[0])
        for ours, theirs in zip(rows[0], other, strict=True):
            assert float(ours["score"]) == pytest.approx(float(theirs["score"]), abs=1e-5)


def test_nothing_else_can_be_set(colours, cli, tmp_path):
    result = cli("predict", colours[0].directory, tmp_path, "--set", "backbone.width=3")
    assert result.exit_code == 2
    assert "backbone.width: the model of a run stays as it is" in result.stderr


def test_values_are_in_the_targets_units(runs, cli, write_image, tmp_path):
    """The rows are what the saved tensors compute by hand: log targets, so exp(mean + std * output)."""
    rows = ["image,price"]
    for index in range(24):
        write_image(tmp_path / f"{index}.png", colour=(index * 10,) * 3, size=(20, 20), seed=index)
        rows.append(f"{index}.png,{1000 * 1.2**index}")
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    data = {"format": "csv", "root": str(tmp_path), "train": "t.csv", "targets": "price", "limit": None}
    run = runs({"task": {"name": "regression", "transform": "log"}, "data": data, "train": {"batch_size": 8}})
    tensors = {name: value.double() for name, value in run.tensors("best").items()}

    file = tmp_path / "7.png"
    predicted = float(table(cli("predict", run.directory, file))[0]["price"])
    resized = np.array(Image.open(file).resize((16, 16), Image.Resampling.BILINEAR))
    state = (torch.from_numpy(resized).permute(2, 0, 1)[None].double() / 255 - tensors["mean"]) / tensors["std"]
    for stage in ("c1", "c2", "c3"):
        weights = {
            key: tensors[f"backbone.stages.{stage}.{key}"] for key in ("0.weight", "0.bias", "1.weight", "1.bias")
        }
        state = torch.nn.functional.conv2d(state, weights["0.weight"], weights["0.bias"], stride=2, padding=1)
        mean, var = (tensors[f"backbone.stages.{stage}.1.running_{key}"] for key in ("mean", "var"))
        state = torch.nn.functional.batch_norm(state, mean, var, weights["1.weight"], weights["1.bias"]).relu()
    layer = "heads.regression.regressor.1"
    output = state.mean((2, 3)) @ tensors[f"{layer}.weight"].T + tensors[f"{layer}.bias"]
    statistics = {key: float(tensors[f"heads.regression.standardizer.{key}"]) for key in ("mean", "std")}
    expected = float(torch.exp(output * statistics["std"] + statistics["mean"]))
    assert predicted == pytest.approx(expected, rel=1e-4)
    assert 500 < predicted < 200_000
