"""A whole run by the command line: what ArcFace learns is saved, and new classes are evaluated."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from click.testing import CliRunner
from PIL import Image

from ftengine.cli import main

CONFIG = Path(__file__).parents[1] / "configs" / "digits.yaml"
SMALL = ("backbone.name=mobilenet_v3_small", "data.limit=8", "train.batch_size=8", "train.workers=0")


def run(*arguments):
    result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs, of which all checkpoints are kept."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    changes = [part for change in (*SMALL, "train.epochs=2") for part in ("--set", change)]
    run("run", "--config", CONFIG, "--output", directory, *changes)
    return directory


def test_the_directions_of_the_classes_train_and_are_saved(finished):
    name = json.loads((finished / "checkpoints" / "last.json").read_text())["checkpoint"]
    tensors = safetensors.torch.load_file(finished / "checkpoints" / name / "model.safetensors")
    (key,) = [key for key in tensors if key.startswith("losses.")]
    assert key.endswith("inner.W")
    assert tensors[key].shape == (64, 7)
    optimizer = safetensors.torch.load_file(finished / "checkpoints" / name / "optimizer.safetensors")
    moments = [tensor for tensor in optimizer.values() if tensor.shape == (64, 7)]
    assert moments
    assert all(tensor.abs().max() > 0 for tensor in moments)


def test_evaluate_finds_what_the_run_found(finished):
    run("evaluate", finished)
    measured = json.loads((finished / "evaluation-val.json").read_text())["metrics"]
    assert measured == json.loads((finished / "summary.json").read_text())["metrics"]["val"]
    assert set(measured) >= {"recall_at_1", "recall_at_5", "map_at_r", "verification_auc", "verification_tar"}
    assert "loss" not in measured


def test_predict_writes_embeddings(finished, tmp_path):
    Image.fromarray(np.full((8, 8, 3), 100, np.uint8)).save(tmp_path / "a.png")
    lines = [line for line in run("predict", finished, tmp_path / "a.png").splitlines() if "," in line]
    (row,) = csv.DictReader(lines)
    embedding = [float(row[f"e{index}"]) for index in range(64)]
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-4)
