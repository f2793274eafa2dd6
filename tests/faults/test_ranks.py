"""One process of several fails, is stopped, or runs out of memory: the others know, nothing is lost, none is left."""

import json
import os
import signal
import subprocess
import sys

import pytest
import yaml

from ranks import Ranks
from run_configs import BASE, merged

PLAIN = {"optimizer": {"name": "sgd", "lr": 0.05}, "train": {"epochs": 3, "process_timeout": 60}}


def failing(trigger, what, at=5, rank=1, **train):
    """Three epochs of three steps; something happens in one of the processes."""
    loss = {"name": "saboteur/failing", "what": what, "at": at, "rank": rank, "trigger": str(trigger)}
    return {**PLAIN, "loss": loss, "train": {**PLAIN["train"], **train}}


@pytest.fixture(scope="module")
def one(runs):
    """The run of one process; with it, all is imported that the others need."""
    return runs({**PLAIN, "backbone": {"norm": "none"}})


@pytest.fixture(scope="module")
def whole(tmp_path_factory, runs, one):
    """The run of two processes in which nothing goes wrong, with the loss that the others have."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "config.yaml").write_text(yaml.safe_dump(merged(BASE, failing(folder / "nothing", "nan"))))
    arguments = ("run", "--config", folder / "config.yaml", "--output", folder / "run")
    ended = Ranks(folder / "said", 2, *arguments).ended()
    assert [process.code for process in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    return runs.of(folder / "run", ended[0])


@pytest.fixture
def start(tmp_path, config_file, runs, one):
    """Starts ``ftengine run`` in two processes: the run, and how they ended."""

    def run(changes, *more, name="run"):
        directory = tmp_path / name
        arguments = more or ("--config", config_file(changes), "--output", directory)
        ended = Ranks(tmp_path / f"{name}-said", 2, "run", *arguments).ended()
        return runs.of(directory, ended[0]), ended

    return run


@pytest.mark.parametrize(
    ("what", "code", "text", "workers"),
    [
        ("SIGKILL", -9, "another process of the run is lost: it has ended", 0),
        ("raise", 1, "another process of the run is lost: rank 1: the loss has failed", 0),
        pytest.param("SIGKILL", -9, "another process of the run is lost: it has ended", 2, marks=pytest.mark.slow),
    ],
)
def test_a_process_that_dies_ends_the_others(start, whole, trigger, what, code, text, workers):
    lost, (first, second) = start(failing(trigger, what, workers=workers))
    assert (first.code, second.code) == (1, code)
    assert text in first.stderr
    assert f"the last good checkpoint stays: {lost.checkpoint()}" in first.stderr
    assert "Traceback" not in first.stderr + second.stderr
    assert second.stdout == ""
    if code == 1:
        assert second.stderr.startswith("[rank 1] Error: the loss has failed")
    # Two processes go on from there, and end as if nothing had happened.
    trigger.unlink()
    _, ended = start(None, "--resume", lost.directory)
    assert [process.code for process in ended] == [0, 0], ended[0].stderr
    assert lost.bytes() == whole.bytes()
    assert lost.summary["metrics"] == whole.summary["metrics"]
    assert [line["step"] for line in lost.lines("train")] == list(range(1, 10))


def test_a_failure_of_the_first_process_while_it_writes_ends_all(start, trigger, tmp_path, config_file):
    (tmp_path / "full").write_text("a file, where a folder is wanted")
    first, second = Ranks(
        tmp_path / "said", 2, "run", "--config", config_file(PLAIN), "--output", tmp_path / "full" / "run"
    ).ended()
    assert (first.code, second.code) == (1, 1)
    assert "full" in first.stderr
    assert "another process of the run is lost" in second.stderr
    assert "Traceback" not in first.stderr + second.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), pytest.param("SIGINT", 130, marks=pytest.mark.slow)])
def test_a_signal_to_one_process_stops_all(start, whole, cli, trigger, name, code):
    """They go on as one process, which is stopped, and then as two."""
    stopped, ended = start(failing(trigger, name, at=4))
    assert [process.code for process in ended] == [code, code], ended[0].stderr + ended[1].stderr
    assert f"stopped by {name} after step 4; everything is saved" in ended[0].stdout
    assert ended[1].stdout == ended[1].stderr == ended[0].stderr == ""
    assert stopped.checkpoint().name == "step-00000004"
    trigger.unlink()
    result = cli("run", "--resume", stopped.directory, "--stop-after", 6)
    assert result.exit_code == 143, result.stderr
    _, ended = start(None, "--resume", stopped.directory, "--stop-after", 8)
    assert [process.code for process in ended] == [143, 143]
    assert stopped.checkpoint().name == "step-00000008"
    _, ended = start(None, "--resume", stopped.directory)
    assert [process.code for process in ended] == [0, 0]
    losses = [[line["loss"] for line in run.lines("train")] for run in (stopped, whole)]
    assert losses[0][:4] == losses[1][:4]
    # BatchNorm's statistics and the parts are those of two processes, also in the one.
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_loss_that_is_not_finite_in_one_process_is_not_finite_in_all(start, trigger):
    lost, (first, second) = start(failing(trigger, "nan"))
    assert (first.code, second.code) == (1, 1)
    reason = first.stderr.partition("Error: ")[2].partition("\n  the last good")[0]
    assert "the loss is not finite at step 5 (epoch 2): cross_entropy nan" in reason
    assert len(reason.partition("samples: ")[2].splitlines()[0].split(", ")) == 8, "those of the process it was"
    assert reason in second.stderr
    assert lost.checkpoint().name == "step-00000003"

    skipped, ended = start(failing(trigger, "inf", on_non_finite="rollback"), name="rolled-back")
    assert [process.code for process in ended] == [0, 0], ended[1].stderr
    assert [line["step"] for line in skipped.lines("fault")] == [5]
    assert "the weights are again those after step 3" in ended[0].stdout


def test_memory_that_runs_out_in_one_process_is_smaller_parts_in_all(start, one, trigger):
    run, ended = start({**failing(trigger, "memory", auto_micro_batch=True), "backbone": {"norm": "none"}})
    assert [process.code for process in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    assert "out of memory in a batch of 8 images in another process" in ended[0].stdout
    state = json.loads((run.checkpoint() / "state.json").read_text())
    assert state["parts"] == 4, "two in each process"
    for mine, whole in zip(run.lines("train"), one.lines("train"), strict=True):
        assert mine["loss"] == pytest.approx(whole["loss"], rel=0, abs=1e-6)


def test_data_that_differ_between_machines_are_refused(tmp_path, config_file, one):
    def work():
        from ftengine.cli import main

        limit = 64 + int(os.environ["RANK"])
        main(["run", "--config", str(config), "--output", str(tmp_path / "run"), "--set", f"data.limit={limit}"])

    config = config_file(PLAIN)
    for rank, process in enumerate(Ranks(tmp_path / "said", 2, work=work).ended()):
        assert process.code == 1
        assert "the config of rank 1 is not that of rank 0" in process.stderr, rank
    assert not (tmp_path / "run").exists()


def test_continue_starts_a_run_goes_on_with_it_and_leaves_others_alone(cli, runs, config_file, tmp_path, third_party):
    config, directory = config_file(PLAIN), tmp_path / "run"
    command = ("run", "--config", config, "--output", directory, "--continue")
    assert cli(*command, "--stop-after", 4).exit_code == 143
    result = cli(*command)
    assert result.exit_code == 0, result.stderr
    assert "continuing after step 4 of 9" in result.stdout
    whole = runs(PLAIN)
    assert runs.of(directory, result).bytes() == whole.bytes()
    assert cli(*command).exit_code == 0, "a run that is over stays over"
    # Ended before its first checkpoint: it is begun anew.
    for file in (directory / "checkpoints").iterdir():
        if file.is_dir():
            for part in file.iterdir():
                part.unlink()
            file.rmdir()
        else:
            file.unlink()
    result = cli(*command)
    assert result.exit_code == 0, result.stderr
    again = runs.of(directory, result)
    assert again.bytes() == whole.bytes()
    assert [line["step"] for line in again.lines("train")] == list(range(1, 10))
    # Another config, a folder of something else, and options that make no sense.
    other = cli(*command, "--set", "optimizer.lr=0.5")
    assert other.exit_code == 2
    assert "optimizer.lr: the run has 0.05, the config 0.5" in other.stderr
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    refused = cli("run", "--config", config, "--output", tmp_path / "notes", "--continue")
    assert refused.exit_code == 1
    assert "exists and is not an empty folder" in refused.stderr
    assert cli("run", "--config", config, "--continue").exit_code == 2
    assert cli("run", "--resume", directory, "--continue").exit_code == 2


def torchrun(arguments, site, *options):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", *options]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.Popen(
        [*command, "-m", "ftengine", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_torchrun_restarts_a_run_that_lost_a_process(whole, config_file, trigger, third_party_site, tmp_path):
    """The loss kills rank 1 once: it takes the file away that it does so by."""
    changes = failing(trigger, "SIGKILL once")
    arguments = ("run", "--config", config_file(changes), "--output", tmp_path / "run", "--continue")
    process = torchrun(arguments, third_party_site, "--max-restarts", "1")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "continuing after step 3 of 9" in out
    name = json.loads((tmp_path / "run" / "checkpoints" / "last.json").read_text())["checkpoint"]
    assert (tmp_path / "run" / "checkpoints" / name / "model.safetensors").read_bytes() == whole.bytes()


@pytest.mark.slow
def test_torchrun_passes_a_signal_on(config_file, trigger, third_party_site, tmp_path):
    changes = {**PLAIN, "train": {**PLAIN["train"], "epochs": 5000, "log_every": 1}}
    process = torchrun(("run", "--config", config_file(changes), "--output", tmp_path / "run"), third_party_site)
    for line in process.stdout:
        if line.startswith("epoch   2"):
            break
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert "stopped by SIGTERM after step" in out, err
    assert (tmp_path / "run" / "checkpoints" / "last.json").is_file()
    assert not (tmp_path / "run" / "summary.json").exists()
