"""The plain script that stands beside the config runs, and the config does the same run."""

import json
import runpy

import pytest
from doc_pages import ROOT, blocks

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture
def photos(tmp_path, monkeypatch, image_folder):
    """36 images to train on, 6 to validate; the current folder is one for output."""
    image_folder(tmp_path / "photos" / "train", count=12)
    image_folder(tmp_path / "photos" / "val", count=2)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "photos"


def test_the_readme_shows_both():
    assert (EXAMPLES / "plain_loop.py").read_text() in blocks(ROOT / "README.md", "python")
    assert (EXAMPLES / "same_run.yaml").read_text() in blocks(ROOT / "README.md", "yaml")


def test_the_script_runs(photos, capsys):
    script = runpy.run_path(str(EXAMPLES / "plain_loop.py"))
    accuracy = script["main"](str(photos), epochs=2, size=32, pretrained=False)
    assert 0 < accuracy <= 1
    assert (photos.parent / "work" / "best.pt").is_file()
    assert capsys.readouterr().out.count("accuracy") == 2


def test_the_config_runs(photos, cli):
    settings = (f"data.root={photos}", "backbone.weights=none", "image.size=32", "train.epochs=2", "train.workers=0")
    arguments = [word for setting in settings for word in ("--set", setting)]
    result = cli("run", "--config", EXAMPLES / "same_run.yaml", *arguments, "--output", "run")
    assert result.exit_code == 0, result.output
    summary = json.loads((photos.parent / "work" / "run" / "summary.json").read_text())
    assert summary["primary"] == "accuracy"
