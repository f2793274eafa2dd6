"""``ftengine lr-find`` as a user runs it."""

import csv
import json
import signal
import subprocess
import sys

import pytest
import yaml
from PIL import Image

from ftengine import lr_find as module

FILES = {"lr-find.json", "lr-find.csv", "lr-find.png"}
RANGE = ("--min", "1e-4", "--max", "10", "--steps", "30")


@pytest.fixture(autouse=True)
def _third_party(third_party):
    """The configs name acme/tiny."""


@pytest.fixture
def learnable(config_file):
    """A config of which the loss falls in 30 steps."""
    return config_file({"optimizer": {"name": "adamw", "lr": 0.01}})


@pytest.fixture
def found(cli, learnable, tmp_path):
    result = cli("lr-find", "--config", learnable, *RANGE, "--output", tmp_path / "found")
    assert result.exit_code == 0, result.output
    return result, tmp_path / "found"


def test_files_and_advice(found):
    result, folder = found
    assert {entry.name for entry in folder.iterdir()} == FILES
    data = json.loads((folder / "lr-find.json").read_text())
    advice = data["suggestions"]["valley"]["lr"]
    assert 1e-4 < advice < 10
    assert data["advice"]["rule"] == "valley"
    assert data["advice"]["lr"] == advice
    assert f"advice (valley), in place of 0.01:\n  optimizer.lr: {advice:.1e}\n" in result.stdout
    for rule, made in data["suggestions"].items():
        assert made["reason"] is None
        row = next(line for line in result.stdout.splitlines() if rule in line and "│" in line)
        assert f"{made['lr']:.1e}" in row
        assert f"{made['loss']:.4g}" in row
    assert f"written to {folder}: lr-find.csv, lr-find.png, lr-find.json" in result.stdout


def test_the_files_say_the_same(found):
    _, folder = found
    data = json.loads((folder / "lr-find.json").read_text())
    assert data["range"] == {"min": 1e-4, "max": 10.0, "steps": 30, "smoothing": 0.98}
    assert data["end"]["kind"] in ("highest", "diverged")
    assert data["config"]["optimizer"]["lr"] == 0.01
    with (folder / "lr-find.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["step"]), *(float(row[key]) for key in ("lr", "loss", "smoothed"))) for row in rows] == [
        (point["step"], point["lr"], point["loss"], point["smoothed"]) for point in data["points"]
    ]
    assert (rows[0]["step"], float(rows[0]["lr"])) == ("1", 1e-4)
    with Image.open(folder / "lr-find.png") as picture:
        assert picture.size == (960, 540)
        assert len(picture.convert("RGB").getcolors(2**20)) > 50, "something is drawn"


def test_the_advice_can_be_used_as_it_is_printed(found, cli, learnable):
    result, _ = found
    line = next(line for line in result.stdout.splitlines() if line.startswith("  optimizer.lr: "))
    key, _, value = line.strip().partition(": ")
    assert isinstance(yaml.safe_load(value), float)
    shown = cli("config", "show", learnable, "--set", f"{key}={value}")
    assert shown.exit_code == 0, shown.output


def test_the_same_command_finds_the_same(found, cli, learnable, tmp_path):
    _, folder = found
    assert cli("lr-find", "--config", learnable, *RANGE, "--output", tmp_path / "again").exit_code == 0
    for name in ("lr-find.csv", "lr-find.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_loss_that_never_falls_gives_no_advice_and_is_no_error(cli, config_file, tmp_path):
    """At rates of next to nothing there is noise alone."""
    file = config_file({"backbone": {"norm": "none"}})
    result = cli("lr-find", "--config", file, "--min", "1e-30", "--max", "1e-29", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "no advice: the smoothed loss falls by" in result.stdout
    data = json.loads((tmp_path / "out" / "lr-find.json").read_text())
    assert data["advice"] == {"rule": "valley", "lr": None, "warnings": []}
    assert data["suggestions"]["steepest"]["lr"] is None
    assert "within the noise of a batch" in data["suggestions"]["steepest"]["reason"]


def test_a_loss_that_explodes_is_the_end_and_no_error(cli, config_file, tmp_path):
    file = config_file({"backbone": {"norm": "none"}, "optimizer": {"name": "sgd", "lr": 0.1}})
    arguments = ("--min", "1e-3", "--max", "1e35", "--steps", "20", "--output", tmp_path / "out")
    result = cli("lr-find", "--config", file, *arguments)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "out" / "lr-find.json").read_text()
    data = json.loads(text)
    assert data["end"]["kind"] in ("diverged", "not finite")
    assert len(data["points"]) < 20
    assert "NaN" not in text
    assert "Infinity" not in text


def test_the_default_folder_is_named_after_the_config(cli, learnable, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("lr-find", "--config", learnable, "--steps", "10").exit_code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("lr-find-config-")
    assert {entry.name for entry in folder.iterdir()} == FILES


def test_settings_can_be_overridden_and_the_task_given(cli, config_file, tmp_path):
    file = config_file({"task": None})
    arguments = ("--task", "classification", "--set", "optimizer.lr=0.5", "--steps", "10")
    result = cli("lr-find", "--config", file, *arguments, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "lr-find.json").read_text())["config"]["optimizer"]["lr"] == 0.5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_nothing_written(cli, learnable, tmp_path, monkeypatch, number, code):
    take_step, steps = module.take_step, []

    def interrupted(*arguments):
        steps.append(1)
        if len(steps) == 4:
            signal.raise_signal(number)
        take_step(*arguments)

    monkeypatch.setattr(module, "take_step", interrupted)
    result = cli("lr-find", "--config", learnable, "--output", tmp_path / "out")
    assert result.exit_code == code
    assert len(steps) == 4
    assert f"stopped by {number.name} after step 3; nothing was written" in result.stdout
    assert not (tmp_path / "out").exists()


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--min", "1", "--max", "0.1"], "--min, --max: learning rates from 1 to 0.1: expected a lowest above 0"),
        (["--min", "0.1", "--max", "0.1"], "--min, --max: learning rates from 0.1 to 0.1"),
        (["--min", "0"], "Invalid value for '--min'"),
        (["--max", "nan"], "--min, --max: learning rates from 1e-07 to nan"),
        (["--max", "inf"], "--min, --max: learning rates from 1e-07 to inf"),
        (["--steps", "9"], "Invalid value for '--steps'"),
        (["--steps", "many"], "Invalid value for '--steps'"),
    ],
)
def test_a_range_that_is_none_is_a_usage_error(cli, learnable, tmp_path, arguments, text):
    result = cli("lr-find", "--config", learnable, "--output", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert text in result.stderr
    assert not (tmp_path / "out").exists()


def test_no_config_is_a_usage_error(cli):
    result = cli("lr-find")
    assert result.exit_code == 2
    assert "--config FILE is needed" in result.stderr


def test_a_config_that_is_wrong_or_not_there(cli, config_file, tmp_path):
    result = cli("lr-find", "--config", tmp_path / "none.yaml")
    assert result.exit_code != 0
    assert "none.yaml" in result.stderr
    result = cli("lr-find", "--config", config_file({"optimizer": {"name": "adamv"}}))
    assert result.exit_code == 2
    assert "unknown optimizer 'adamv'; did you mean 'adam'?" in result.stderr


def test_a_folder_with_something_in_it_is_refused(cli, learnable, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    result = cli("lr-find", "--config", learnable, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert f"--output {tmp_path / 'out'}: exists and is not an empty folder; give another" in result.stderr
    assert "--resume" not in result.stderr
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_optimizer_without_a_rate_to_find_is_refused(cli, config_file, tmp_path):
    file = config_file({"optimizer": {"name": "rprop", "lr": 0.01}})
    result = cli("lr-find", "--config", file, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "rprop finds the step of each weight by itself" in result.stderr
    assert not (tmp_path / "out").exists()


def test_its_help_leaves_torch_unimported():
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('heavy:', *({'torch', 'matplotlib', 'scipy'} & set(sys.modules))))\n"
        "from ftengine.cli import main\n"
        "main(['lr-find', '--help'], prog_name='ftengine')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert "--steps" in result.stdout
    assert result.stdout.endswith("heavy:\n")
