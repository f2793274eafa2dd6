"""A signal in each phase of a run: it is saved, the exit code is the signal's, and resumed it ends the same."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from same_runs import assert_same

from forked import leave_after
from ftengine import signals as module
from ranks import command
from run_configs import BASE, merged

CONFIG = merged(
    BASE,
    {
        "data": {"test_fraction": 0.125},
        "train": {"eval_batch_size": 4, "swa": {"start": 0.5}, "wise_ft": {"grid": [0.3, 0.8]}, "log_every": 2},
        "checkpoint": {"every_steps": 4},
    },
)
"""Two epochs of two steps; the second epoch's end is averaged. An evaluation of val has four batches."""
FOREGROUND = ["--set", "checkpoint.background=false"]
"""So that saving is a phase of its own."""
PHASES = {
    # name: (function, which call of it sends the signal, SIGINT or SIGTERM, the step that is saved, evaluations in log)
    "the weights are being stored": ("ftengine.run.save_start", 1, "SIGINT", 0, []),
    "evaluation of the start": ("ftengine.evaluate.weighted_terms", 2, "SIGTERM", 0, []),
    "last batch of that": ("ftengine.evaluate.weighted_terms", 4, "SIGINT", 0, []),
    "first batch": ("ftengine.step.compute_gradients", 1, "SIGTERM", 1, [0]),
    "training": ("ftengine.step.compute_gradients", 3, "SIGINT", 3, [0, 2]),
    "last step of an epoch": ("ftengine.step.compute_gradients", 2, "SIGTERM", 2, [0]),
    "evaluation of an epoch": ("ftengine.evaluate.weighted_terms", 6, "SIGTERM", 2, [0]),
    "statistics of an average": ("ftengine.loop.refresh_norms", 1, "SIGINT", 4, [0, 2]),
    "last evaluation": ("ftengine.evaluate.weighted_terms", 10, "SIGTERM", 4, [0, 2]),
    "saving": ("ftengine.checkpoint.write", 2, "SIGINT", 2, [0]),
    "mixing with the start": ("ftengine.wise_ft.evaluate_split", 2, "SIGTERM", 4, [0, 2, 4]),
    "evaluation of test": ("ftengine.summary.evaluate_split", 1, "SIGINT", 4, [0, 2, 4]),
}


def send_at(patch, function, call, send):
    """Lets `send` be called just before one of the calls of a function, in this process."""
    where, _, name = function.rpartition(".")
    module = sys.modules[where]
    original, calls, process = getattr(module, name), [], os.getpid()

    def sending(*arguments, **options):
        calls.append(1)
        if len(calls) == call and os.getpid() == process:
            send()
        return original(*arguments, **options)

    patch.setattr(module, name, sending)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a name that needs quotes."""
    folder = tmp_path_factory.mktemp("stopped runs")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


@pytest.fixture(scope="module")
def whole(folder, cli, third_party):
    result = cli("run", "--config", folder / "config.yaml", "--output", folder / "whole")
    assert result.exit_code == 0, result.output
    return folder / "whole"


def again(output):
    """The arguments of the line that continues the run."""
    (line,) = [line for line in output.splitlines() if line.startswith("continue with: ")]
    words = shlex.split(line.removeprefix("continue with: "))
    assert words[0] == "ftengine"
    return words[1:]


@pytest.mark.parametrize("phase", PHASES)
def test_a_signal(cli, folder, whole, phase, monkeypatch):
    function, call, number, step, evaluations = PHASES[phase]
    directory = folder / phase
    with monkeypatch.context() as patch:
        send_at(patch, function, call, lambda: os.kill(os.getpid(), signal.Signals[number]))
        result = cli("run", "--config", folder / "config.yaml", "--output", directory, *FOREGROUND)
    assert result.exit_code == 128 + signal.Signals[number]
    assert f"stopped by {number} after step {step}; everything is saved" in result.stdout
    assert not (directory / "summary.json").exists()
    assert [row["step"] for row in rows(directory) if row["split"] == "val"] == evaluations
    assert cli(*again(result.stdout)).exit_code == 0
    assert_same(directory, whole)


def rows(directory):
    file = directory / "metrics.jsonl"
    return [yaml.safe_load(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize(
    ("function", "number"),
    [
        ("rich.console.Console.status", "SIGTERM"),
        ("ftengine.run.make_streams", "SIGINT"),
        ("ftengine.run.make_model", "SIGTERM"),
    ],
    ids=["torch is loading", "the data are read", "the model is built"],
)
def test_a_signal_before_there_is_anything_to_save(cli, folder, function, number, monkeypatch, request):
    directory = folder / f"nothing {request.node.callspec.id}"
    command = ["run", "--config", folder / "config.yaml", "--output", directory]
    with monkeypatch.context() as patch:
        if function.startswith("rich"):
            patch.setattr("rich.console.Console.status", interrupting(number))
        else:
            send_at(patch, function, 1, lambda: os.kill(os.getpid(), signal.Signals[number]))
        result = cli(*command)
    assert result.exit_code == 128 + signal.Signals[number]
    assert f"stopped by {number} before it began; nothing was written\ncontinue with: the same command" in result.stdout
    assert not directory.exists()
    assert cli(*command, "--stop-after", 1).exit_code == 143


def interrupting(number):
    @contextlib.contextmanager
    def status(self, text):
        yield
        os.kill(os.getpid(), signal.Signals[number])

    return status


def test_a_signal_while_a_run_that_goes_on_is_built(cli, folder, whole, monkeypatch):
    directory = folder / "goes on"
    assert cli("run", "--config", folder / "config.yaml", "--output", directory, "--stop-after", 3).exit_code == 143
    with monkeypatch.context() as patch:
        send_at(patch, "ftengine.run.make_model", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        result = cli("run", "--resume", directory)
    assert result.exit_code == 143
    assert cli(*again(result.stdout)).exit_code == 0
    assert_same(directory, whole)


# --- processes that end -------------------------------------------------------------------------------------------


class Process:
    """The command line in a process of its own, of its own session, forked from this one."""

    def __init__(self, arguments, log, prepare):
        self.log = log
        self.id = os.fork()
        if self.id == 0:
            leave_after(lambda: self._run(arguments, prepare), log)

    def _run(self, arguments, prepare):
        os.setsid()
        with pytest.MonkeyPatch.context() as patch:
            prepare(patch)
            command(arguments)

    def exit_code(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.id, 0)[1])

    def nothing_is_left(self):
        """Waits until no process of the session is left."""
        deadline = time.monotonic() + 30
        while found := [pid for pid in self._session() if pid != os.getpid()]:
            assert time.monotonic() < deadline, found
            time.sleep(0.01)

    def _session(self):
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.id and state != "Z":
                    yield int(stat.parent.name)


def group(number):
    return lambda: os.killpg(0, number)


def twice(number):
    """Sends a signal, and once that is noted another."""

    def send():
        for _ in range(2):
            os.kill(os.getpid(), number)
        signal.pause()

    return send


@pytest.mark.parametrize(
    ("function", "call", "send", "workers", "code", "step"),
    [
        pytest.param(
            *("multiprocessing.context.ForkProcess.start", 2, group(signal.SIGTERM), 2, 143, 0), marks=pytest.mark.slow
        ),
        pytest.param(*("ftengine.evaluate.weighted_terms", 6, group(signal.SIGINT), 2, 130, 2), marks=pytest.mark.slow),
        ("ftengine.step.compute_gradients", 3, group(signal.SIGTERM), 2, 143, 3),
        ("ftengine.step.compute_gradients", 3, twice(signal.SIGTERM), 2, 143, 2),
        pytest.param(
            *("ftengine.evaluate.weighted_terms", 10, twice(signal.SIGINT), 0, 130, 4), marks=pytest.mark.slow
        ),
        ("ftengine.checkpoint.write", 7, twice(signal.SIGTERM), 0, 143, 2),
        pytest.param(
            *("ftengine.step.compute_gradients", 3, lambda: os.kill(os.getpid(), signal.SIGKILL), 2, -9, 2),
            marks=pytest.mark.slow,
        ),
    ],
    ids=[
        "group, workers start",
        "group, evaluation",
        "group, training",
        "second, training",
        "second, evaluation",
        "second, saving",
        "SIGKILL",
    ],
)
def test_a_process(cli, folder, whole, request, function, call, send, workers, code, step):
    directory, log = folder / request.node.callspec.id, folder / f"{request.node.callspec.id}.log"

    def prepare(patch):
        patch.setattr(module, "SAME", 0.0 if "second" in str(directory) else 60.0)
        if function.startswith("multiprocessing"):
            patch.setattr("multiprocessing.context.ForkProcess.start", starting(call, send))
        else:
            send_at(patch, function, call, send)

    options = ["--set", f"train.workers={workers}", *FOREGROUND]
    process = Process(["run", "--config", folder / "config.yaml", "--output", directory, *options], log, prepare)
    assert process.exit_code() == code, log.read_text()
    process.nothing_is_left()
    name = yaml.safe_load((directory / "checkpoints" / "last.json").read_text())["checkpoint"]
    assert name == f"step-{step:08d}"
    arguments = ["run", "--resume", directory]
    if "group" in str(directory):
        assert again(log.read_text()) == [str(argument) for argument in arguments]
    result = cli(*arguments)
    assert result.exit_code == 0, result.output
    assert_same(directory, whole)


def starting(call, send):
    """`Process.start` that sends a signal when one of the processes has been started."""
    import multiprocessing

    start, calls = multiprocessing.context.ForkProcess.start, []

    def starting(self):
        start(self)
        calls.append(1)
        if len(calls) == call:
            send()

    return starting


@pytest.mark.slow
def test_a_real_group_with_workers(folder, third_party_site):
    """As `timeout` does it: to the process, and then to its group."""
    config = merged(CONFIG, {"train": {"workers": 2, "epochs": 2000, "wise_ft": None}})
    file, log, directory = folder / "long.yaml", folder / "long.log", folder / "long run"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "ftengine", "run", "--config", str(file), "--output", str(directory)]
    environment = {**os.environ, "PYTHONPATH": str(third_party_site)}
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (directory / "checkpoints" / "last.json").exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 143
    text = log.read_text()
    assert "everything is saved" in text
    assert "Traceback" not in text
    assert again(text) == ["run", "--resume", str(directory)]
