"""What becomes of predictions: rows, results, index maps, pictures."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drawing import Boxes, Masks, Plain, boxes_of, mask_of
from ftengine.errors import DataError
from ftengine.images import read_image
from ftengine.predict_files import PredictionFiles, as_csv, distinct_names, form_of, image_ids


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "in" / name for name in ("x/12.png", "x/7.jpg", "y/7.png")]
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 40, 3), 50 * i, np.uint8)).save(path)
    return paths


def write(tasks, files, output, predictions, **options):
    with PredictionFiles(tasks, files, output, **options) as written:
        for index in range(len(files)):
            written.add(index, {name: predictions[name](index) for name in tasks})
    return written


BOXES = {"boxes": lambda index: boxes_of(index)}
BOTH = {**BOXES, "masks": lambda index: mask_of(index)}


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- rows and results ------------------------------------------------------------------------------------------


def test_rows_are_returned_for_printing_and_nothing_is_written(tmp_path, files):
    before = below(tmp_path)
    written = write({"boxes": Boxes()}, files, None, BOXES)
    assert written.rows == [{"image": str(file), "boxes": i} for i, file in enumerate(files)]
    assert list(csv.DictReader(io.StringIO(as_csv(written.rows))))[2] == {"image": str(files[2]), "boxes": "2"}
    assert written.summary == []
    assert below(tmp_path) == before


def test_a_file_name_that_is_not_utf8_can_be_written(tmp_path, files):
    odd = files[0].with_name("x\udcff.png")
    files[0].rename(odd)
    for name in ("rows.csv", "rows.json"):
        write({"masks": Masks()}, [odd], tmp_path / name, BOTH)
        assert "x\\udcff.png" in (tmp_path / name).read_text(encoding="utf-8")


def test_a_joint_run_prefixes_its_columns(tmp_path, files):
    tasks = {"boxes": Boxes(), "masks": Masks()}
    written = write(tasks, files, tmp_path / "out.csv", BOTH, joint=True)
    assert list(written.rows[0]) == ["image", "boxes/boxes", "masks/classes"]
    assert (tmp_path / "out.csv").read_text() == as_csv(written.rows)
    assert written.summary == [f"3 predictions written to {tmp_path / 'out.csv'}"]


def test_json_of_one_task_with_records_is_a_coco_result_file(tmp_path, files):
    output = tmp_path / "deep" / "results.json"
    written = write({"boxes": Boxes()}, files, output, BOXES)
    rows = json.loads(output.read_text())
    assert [row["image_id"] for row in rows] == [2, 3, 3]
    assert [row["file_name"] for row in rows] == ["x/7.jpg", "y/7.png", "y/7.png"]
    expected = boxes_of(2)
    assert [row["bbox"] for row in rows[1:]] == expected["boxes"].tolist()  # to the last digit
    assert [row["score"] for row in rows[1:]] == expected["scores"].tolist()
    assert written.summary == [f"3 results written to {output}"]


def test_json_of_other_runs_are_rows(tmp_path, files):
    for tasks, predictions in (({"n": Plain()}, {"n": lambda i: {"number": i}}), ({"a": Boxes(), "b": Boxes()}, None)):
        output = tmp_path / f"{len(tasks)}.json"
        made = predictions or {"a": boxes_of, "b": boxes_of}
        written = write(tasks, files, output, made)
        assert json.loads(output.read_text()) == written.rows


def test_no_boxes_at_all_are_an_empty_list(tmp_path, files):
    write({"boxes": Boxes()}, files, tmp_path / "r.json", {"boxes": lambda index: boxes_of(0)})
    assert json.loads((tmp_path / "r.json").read_text()) == []


def test_pycocotools_reads_the_results(tmp_path, files):
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {"images": [{"id": i} for i in (1, 2, 3)], "categories": [{"id": 1}], "annotations": [], "info": {}}
    coco.createIndex()
    write({"boxes": Boxes()}, files, tmp_path / "r.json", BOXES)
    assert len(coco.loadRes(str(tmp_path / "r.json")).anns) == 3


# --- folders and pictures --------------------------------------------------------------------------------------


def test_a_folder_gets_everything(tmp_path, files):
    output = tmp_path / "out"
    written = write({"boxes": Boxes(), "masks": Masks()}, files, output, BOTH, joint=True)
    assert below(output) == ["boxes.json", "masks/x/12.png", "masks/x/7.png", "masks/y/7.png", "predictions.csv"]
    assert len(json.loads((output / "boxes.json").read_text())) == 3
    assert written.summary == [
        f"3 results written to {output / 'boxes.json'}",
        f"3 index maps written to {output / 'masks'}",
        f"3 predictions written to {output / 'predictions.csv'}",
    ]


def test_index_maps_have_the_values_and_show_colours(tmp_path, files):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write({"masks": Masks()}, files[:1], tmp_path / "out", {"masks": lambda index: {"mask": torch.from_numpy(values)}})
    with Image.open(tmp_path / "out" / "masks" / "12.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), values)
        shown = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(shown, axis=0)) == 256
    assert shown[255].tolist() == [0, 0, 0]


def test_pictures_of_each_image_and_task(tmp_path, files):
    folder = tmp_path / "pictures"
    written = write({"boxes": Boxes()}, files, None, BOXES, pictures=folder)
    assert below(folder) == ["x/12.png", "x/7.png", "y/7.png"]
    expected = Boxes().draw(read_image(files[2]), boxes_of(2))
    np.testing.assert_array_equal(read_image(folder / "y" / "7.png"), expected)
    assert written.summary == [f"3 pictures written to {folder}"]
    joint = {"boxes": Boxes(), "masks": Masks(), "n": Plain()}
    predictions = {**BOTH, "masks": lambda index: mask_of(1), "n": lambda index: {"number": 1}}
    write(joint, files, None, predictions, pictures=tmp_path / "joint", joint=True)
    assert below(tmp_path / "joint") == [f"{task}/{name}" for task in ("boxes", "masks") for name in below(folder)]


def test_pictures_of_nothing_say_so(tmp_path, files):
    written = write({"n": Plain()}, files, None, {"n": lambda i: {"number": i}}, pictures=tmp_path / "pictures")
    assert written.summary == ["no pictures: nothing to draw for n"]
    assert not (tmp_path / "pictures").exists()


def test_what_fails_half_way_leaves_no_half_file(tmp_path, files):
    output = tmp_path / "out"
    with pytest.raises(ZeroDivisionError):
        write({"boxes": Boxes()}, files, output, {"boxes": lambda index: boxes_of(3 // (2 - index))})
    assert below(output) == []


# --- names and numbers -----------------------------------------------------------------------------------------


def test_names_are_distinct():
    paths = [Path(name) for name in ("d/a/1.jpg", "d/b/1.jpg", "d/a/2.jpg", "d/a/2.PNG", "d/a/v1.0.png")]
    names = [name.as_posix() for name in distinct_names(paths)]
    assert names == ["a/1.png", "b/1.png", "a/2.jpg.png", "a/2.PNG.png", "a/v1.0.png"]
    assert [name.as_posix() for name in distinct_names([Path("/x/y/a.jpg")])] == ["a.png"]
    assert distinct_names([]) == []


def test_image_ids_are_the_numbers_that_files_are_called_by():
    paths = [Path(f"val/{number:012d}.jpg") for number in (139, 7)]
    assert image_ids(paths, None) == [139, 7]
    assert image_ids([*paths, Path("other/7.jpg")], None) == [1, 2, 3]
    assert image_ids([*paths, Path("cat.jpg")], None) == [1, 2, 3]


def test_image_ids_of_a_coco_file(tmp_path):
    annotations = tmp_path / "val.json"
    listed = [("a.jpg", 5), ("x/a.jpg", 6), ("b.jpg", 9), ("y\\c.jpg", 0)]
    annotations.write_text(json.dumps({"images": [{"file_name": name, "id": number} for name, number in listed]}))
    paths = [Path("data/b.jpg"), Path("data/x/a.jpg"), Path("data/z/a.jpg"), Path("y/c.jpg")]
    assert image_ids(paths, annotations) == [9, 6, 5, 0]
    with pytest.raises(DataError, match=r"lists no image of the name: data/d.jpg$"):
        image_ids([*paths, Path("data/d.jpg")], annotations)
    with pytest.raises(DataError, match=r"one image for several files: data/b.jpg, more/b.jpg$"):
        image_ids([*paths, Path("more/b.jpg")], annotations)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"images": [{"id": 1}]}', '{"images": [{"id": "x", "file_name": "a"}]}']
)
def test_other_files_are_no_annotations(tmp_path, content):
    annotations = tmp_path / "val.json"
    annotations.write_text(content)
    with pytest.raises(DataError, match=r"val.json: expected a COCO file: `images`, each with `id` and `file_name`"):
        image_ids([Path("a.jpg")], annotations)


def test_a_missing_annotation_file_is_named(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        image_ids([Path("a.jpg")], tmp_path / "none.json")


def test_the_form_follows_from_the_name(tmp_path):
    (tmp_path / "v1.0").mkdir()
    (tmp_path / "file").touch()
    forms = [form_of(path) for path in (None, Path("a.csv"), Path("a.json"), Path("a"), tmp_path / "v1.0")]
    assert forms == ["print", "csv", "json", "folder", "folder"]
    with pytest.raises(DataError, match=r"--output a.txt: expected a name that ends in .csv or .json"):
        form_of(Path("a.txt"))
    with pytest.raises(DataError, match="this is a file"):
        form_of(tmp_path / "file")
