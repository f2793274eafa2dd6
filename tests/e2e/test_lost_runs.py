"""A loss that is not finite, a signal, a damaged checkpoint: what was saved stays, and the run can go on."""

import json
import math
import shutil

import pytest

from ftengine.claim import claim


@pytest.fixture
def trigger(tmp_path):
    file = tmp_path / "trigger"
    file.touch()
    return file


def failing(trigger, what, at):
    """Three epochs of three steps in which something happens at batch `at`."""
    return {
        "train": {"epochs": 3},
        "loss": {"name": "saboteur/failing", "what": what, "at": at, "trigger": str(trigger)},
    }


@pytest.mark.parametrize("what", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_the_run(runs, cli, trigger, what):
    lost = runs(failing(trigger, what, at=5), exit_code=1)
    text = lost.result.stderr
    assert f"the loss is not finite at step 5 (epoch 2): cross_entropy {what}" in text
    ids = text.partition("samples: ")[2].splitlines()[0].split(", ")
    assert len(set(ids)) == 16
    assert all(name.startswith("digit-") for name in ids)
    assert f"the last good checkpoint stays: {lost.checkpoint()}" in text
    assert lost.checkpoint().name == "step-00000003"
    assert [line["step"] for line in lost.lines("train")] == [1, 2, 3, 4]
    assert not (lost.directory / "summary.json").exists()
    # Evaluation reads the checkpoint that stayed; and once the cause is gone, the run goes on to the same end.
    assert cli("evaluate", lost.directory).exit_code == 0
    trigger.unlink()
    assert cli("run", "--resume", lost.directory).exit_code == 0
    assert lost.bytes() == runs(failing(trigger, what, at=5)).bytes()
    assert [line["step"] for line in lost.lines("train")] == list(range(1, 10)), "step 4 was logged before, too"


def test_a_loss_that_is_not_finite_at_once(runs, trigger):
    lost = runs(failing(trigger, "nan", at=1), exit_code=1)
    assert "step 1 (epoch 1)" in lost.result.stderr
    assert "there is no checkpoint yet" in lost.result.stderr


def test_parameters_that_are_not_finite_are_not_saved(runs, monkeypatch):
    """The last step of the second epoch breaks them, though its loss was finite."""

    def broken(optimizer, factor, epochs, warmup_epochs):
        for group in optimizer.param_groups:
            group["lr"] = math.nan if epochs == 5 / 3 else 0.01

    monkeypatch.setattr("ftengine.loop.set_learning_rates", broken)
    run = runs(exit_code=1)
    assert "the parameters are not finite after step 6, and are not saved" in run.result.stderr
    assert f"the last good checkpoint stays: {run.directory}/checkpoints/step-00000003" in run.result.stderr
    assert run.checkpoint("last").name == run.checkpoint("best").name == "step-00000003"


@pytest.mark.parametrize(("signal", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_saves_and_stops(runs, trigger, signal, code):
    stopped = runs(failing(trigger, signal, at=5), exit_code=code)
    assert stopped.checkpoint().name == "step-00000005"
    assert f"stopped by {signal} after step 5; everything is saved" in stopped.result.stdout
    assert f"continue with: ftengine run --resume {stopped.directory}" in stopped.result.stdout
    assert not (stopped.directory / "summary.json").exists()


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_parts(runs, cli, trigger):
    stopped = runs(failing(trigger, "SIGINT", at=4), exit_code=130)
    trigger.unlink()
    elapsed = json.loads((stopped.checkpoint() / "state.json").read_text())["elapsed"]
    assert cli("run", "--resume", stopped.directory).exit_code == 0
    assert stopped.summary["seconds"] > elapsed > 0


def test_a_run_that_ended_before_its_first_checkpoint(runs, cli):
    run = runs()
    shutil.rmtree(run.directory / "checkpoints")
    result = cli("run", "--resume", run.directory)
    assert result.exit_code == 1
    assert "has no checkpoint to continue from" in result.stderr
    advice = "if the run ended before its first, start it again: in another folder, or in this one with --continue"
    assert advice in result.stderr


@pytest.mark.slow
def test_a_signal_in_a_process_of_its_own(cli_process, config_file, trigger, third_party_site, tmp_path):
    config = config_file(failing(trigger, "SIGTERM", at=2))
    result = cli_process("run", "--config", config, "--output", tmp_path / "run", path=[third_party_site])
    assert result.returncode == 143
    assert result.stderr == ""
    assert "stopped by SIGTERM after step 2" in result.stdout


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_the_best_checkpoint_stays_though_the_run_was_killed_before_the_pointer_to_it(runs, cli, trigger):
    at_rest = failing(trigger, "SIGINT", at=4) | {"optimizer": {"name": "sgd", "lr": 1e-30, "weight_decay": 0.0}}
    at_rest["backbone"] = {"norm": "none"}  # its statistics would move
    stopped = runs(at_rest, exit_code=130)
    trigger.unlink()
    shutil.rmtree(stopped.checkpoint("last"))
    folder = stopped.directory / "checkpoints"
    (folder / "best.json").rename(folder / "last.json")
    assert cli("run", "--resume", stopped.directory).exit_code == 0
    assert stopped.summary["best_step"] == 3
    assert stopped.checkpoint("best").name == "step-00000003"
    assert stopped.checkpoint("best").is_dir()


def test_a_damaged_checkpoint_gives_way_to_the_newest_whole_one(runs, cli):
    finished = runs({"checkpoint": {"keep": 2}})
    before = finished.bytes()
    flip(finished.checkpoint("last") / "optimizer.safetensors")
    result = cli("run", "--resume", finished.directory)
    assert result.exit_code == 0
    said = " ".join(result.stdout.split())
    assert "step-00000006 is damaged: optimizer.safetensors is not what was written (its SHA-256 differs)" in said
    assert "continuing after step 3 of 6" in said
    assert finished.bytes() == before
    assert [line["step"] for line in finished.lines("train")] == [1, 2, 3, 4, 5, 6]


def test_a_run_without_a_whole_checkpoint_is_refused(runs, cli):
    finished = runs()
    for path in (finished.directory / "checkpoints").glob("step-*"):
        (path / "optimizer.safetensors").unlink()
    result = cli("run", "--resume", finished.directory)
    assert result.exit_code == 1
    assert f"{finished.directory} has no whole checkpoint to continue from:" in result.stderr
    assert f"{finished.checkpoint()} is damaged: optimizer.safetensors is missing" in result.stderr


def test_a_damaged_best_checkpoint_is_not_evaluated(runs, cli, tmp_path):
    finished = runs()
    flip(finished.checkpoint("best") / "model.safetensors")
    for arguments in (["evaluate", finished.directory], ["predict", finished.directory, tmp_path]):
        result = cli(*arguments)
        assert result.exit_code == 1
        assert "its SHA-256 differs" in result.stderr


def test_no_run_directory(cli, tmp_path):
    for arguments in (["run", "--resume", tmp_path], ["evaluate", tmp_path], ["predict", tmp_path, "a.png"]):
        result = cli(*arguments)
        assert result.exit_code == 1
        assert f"{tmp_path} is not a run directory: it has no resolved.yaml" in result.stderr


def test_resume_changes_nothing_of_the_run(runs, cli, config_file):
    finished = runs()
    result = cli("run", "--resume", finished.directory, "--set", "train.epochs=9")
    assert result.exit_code == 2
    text = (
        "train.epochs: --resume continues the same run, unless --force is given; only these can be set: train.workers"
    )
    assert text in result.stderr
    result = cli("run", "--resume", finished.directory, "--config", config_file({"optimizer": {"lr": 0.5}}))
    assert result.exit_code == 2
    assert "optimizer.lr: the run has 0.01, the config 0.5" in result.stderr
    result = cli("run", "--resume", finished.directory, "--task", "regression")
    assert result.exit_code == 1
    assert f"--task regression: the run in {finished.directory} is of classification\n" in result.stderr


@pytest.mark.parametrize("train", [{}, {"epochs": 9, "early_stopping": {"patience": 1, "min_delta": 2}}], ids=str)
def test_resume_of_a_finished_run_leaves_it_as_it_is(runs, cli, train):
    finished = runs({"data": {"test_fraction": 0.1, "val_fraction": 0.1}, "train": train})
    before, summary, lines = finished.bytes(), finished.summary, finished.lines()
    assert cli("run", "--resume", finished.directory).exit_code == 0
    assert finished.bytes() == before
    assert finished.summary["metrics"] == summary["metrics"]
    assert finished.summary["epochs"] == summary["epochs"]
    assert finished.lines() == lines


def test_a_line_that_was_cut_off_is_dropped(runs, cli, trigger):
    stopped = runs(failing(trigger, "SIGTERM", at=4), exit_code=143)
    with (stopped.directory / "metrics.jsonl").open("ab") as file:
        file.write(b'\xcc\xfe not ours\n{"step": 5, "spl')
    trigger.unlink()
    assert cli("run", "--resume", stopped.directory).exit_code == 0
    assert [line["step"] for line in stopped.lines("train")] == list(range(1, 10))


def test_resume_with_other_data_is_refused(runs, cli, image_folder, tmp_path, write_image):
    folder = image_folder(tmp_path / "train", count=8)
    run = runs({"data": {"format": "folder", "root": str(tmp_path), "train": "train", "limit": None}})
    write_image(folder / "red" / "new.png")
    result = cli("run", "--resume", run.directory)
    assert result.exit_code == 1
    assert "the data are not those of the run" in result.stderr


def test_resume_with_other_targets_is_refused(runs, cli, image_folder, tmp_path):
    image_folder(tmp_path / "train", classes=("red", "green"), count=4)
    rows = [f"train/{name}/{index}.png" for name in ("red", "green") for index in range(4)]
    table = tmp_path / "table.csv"

    def write(values):
        lines = [f"{image},{value}" for image, value in zip(rows, values, strict=True)]
        table.write_text("\n".join(["image,size", *lines]))

    write(range(8))
    data = {"format": "csv", "root": str(tmp_path), "train": "table.csv", "targets": "size", "limit": None}
    run = runs({"task": "regression", "data": data, "train": {"batch_size": 4}})
    write(reversed(range(8)))
    result = cli("run", "--resume", run.directory)
    assert result.exit_code == 1
    assert "the data are not those of the run" in result.stderr


def test_an_observer_that_fails_is_told_once_and_left_out(runs, monkeypatch):
    monkeypatch.setenv("SABOTEUR_OBSERVER", "1")
    run = runs()
    warning = "observer saboteur failed in metrics_logged and is left out: ValueError: the observer has failed"
    assert run.result.stdout.count(warning) == 1
    assert json.loads((run.directory / "summary.json").read_text())["epochs"] == 2


def test_a_directory_in_which_a_run_is_going_on_is_refused(runs, cli):
    run = runs()
    with claim(run.directory):
        result = cli("run", "--resume", run.directory)
    assert result.exit_code == 1
    assert f"{run.directory}: another process is training in this directory" in result.stderr
    assert cli("run", "--resume", run.directory).exit_code == 0


def test_a_run_without_a_best_checkpoint_says_so(runs, image_folder, tmp_path):
    """A val split of one class has no AUROC."""
    image_folder(tmp_path / "train")
    image_folder(tmp_path / "val", classes=("red",))
    data = {"format": "folder", "root": str(tmp_path), "train": "train", "val": "val", "limit": None}
    run = runs({"data": {**data, "val_fraction": None}, "metrics": ["auroc"], "train": {"batch_size": 4}})
    assert "no checkpoint is the best: auroc was never a finite number" in run.result.stdout
    assert "best checkpoint, epoch" not in run.result.stdout
