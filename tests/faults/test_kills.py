"""A run that is killed at any point, and resumed, ends as one that was not: to the last bit."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from same_runs import assert_same

from run_configs import BASE, merged

TWENTY = merged(
    BASE,
    {
        "head": {"name": "mlp", "hidden": [16], "dropout": 0.3},
        "metrics": ["acme/error_rate"],
        "augment": [{"name": "Affine", "rotate": [-20, 20], "p": 0.7}],
        "freeze": {"name": "gradual", "warmup_epochs": 0.5},
        "checkpoint": {"every_steps": 3, "keep": 2},
        "train": {"epochs": 5, "batch_size": 12, "accumulate": 2, "ema": 0.8, "log_every": 2},
    },
)
"""Five epochs of four steps."""
POINTS, SEED = int(os.environ.get("KILL_POINTS", "500")), 20261121
"""How many kills the longest test makes, at least, and what chooses them."""


class Server:
    """A process that has imported all that a run needs, and forks one for each command."""

    def __init__(self, site, folder, warm):
        self.folder = folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        script = Path(__file__).with_name("fork_server.py")
        command = [sys.executable, str(script), str(site), json.dumps([str(part) for part in warm])]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, *arguments, **more):
        """Run ``ftengine`` with `arguments`; returns its exit code."""
        request = {"arguments": [str(argument) for argument in arguments], "log": str(self.folder / "log"), **more}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the server has died"
        return int(answer)

    def log(self):
        """What the commands have printed since the last time."""
        file = self.folder / "log"
        text = file.read_text()
        file.unlink()
        return text

    def end(self):
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def config(folder):
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(TWENTY))
    return file


@pytest.fixture(scope="module")
def server(third_party_site, folder, config):
    """It makes the reference run itself, which imports and reads all that the others need."""
    made = Server(third_party_site, folder, ["run", "--config", config, "--output", folder / "reference"])
    yield made
    made.end()


@pytest.fixture(scope="module")
def reference(server, folder):
    assert server("--version") == 0  # the server answers: its own run is done
    server.log()
    return folder / "reference"


def until_done(server, config, directory, kills):
    """Run in `directory`, killed once for each of `kills`, and then to the end; returns how many kills there were.

    The commands that go on after a kill take turns where both can: ``--continue``, and ``--resume``.
    """
    killed = 0
    for kill in [*kills, None]:
        # A run killed at any point, also before it has its config, is gone on with by the same command.
        arguments = ["--config", config, "--output", directory, "--continue"]
        if killed % 2 and (directory / "checkpoints" / "last.json").exists():
            arguments = ["--resume", directory]
        code = server("run", *arguments, **({} if kill is None else {"kill": kill}))
        assert code == (-9 if code == -9 and kill else 0), server.log()
        killed += code == -9
    return killed


@pytest.mark.parametrize(
    ("step", "workers"),
    [
        pytest.param(step, workers, marks=() if (step, workers) == (14, 2) else pytest.mark.slow)
        for workers in (0, 2)
        for step in range(1, 21)
    ],
)
def test_killed_in_a_step(server, reference, config, tmp_path, step, workers):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(merged(TWENTY, {"train": {"workers": workers}})))
    assert until_done(server, file, tmp_path / "run", [["take_step", step]]) == 1
    assert_same(tmp_path / "run", reference)


@pytest.mark.parametrize(
    ("what", "at"),
    [
        ("_chunks", 1),
        ("summarise_run", 1),
        *(
            pytest.param(*place, marks=pytest.mark.slow)
            for place in [("evaluate_split", 3), ("snapshot", 2), ("make_model", 1)]
        ),
    ],
)
def test_killed_elsewhere(server, reference, config, tmp_path, what, at):
    assert until_done(server, config, tmp_path / "run", [[what, at]]) == 1
    assert_same(tmp_path / "run", reference)


@pytest.mark.slow
def test_killed_at_many_points(server, reference, config, folder, tmp_path):
    """Half of the points are spread over all calls, from start to summary; half over all that is done to files."""
    count = tmp_path / "count.json"
    assert server("run", "--config", config, "--output", tmp_path / "counted", count=str(count)) == 0
    totals = json.loads(count.read_text())
    assert_same(tmp_path / "counted", reference)
    generator = random.Random(SEED)
    began, killed, runs = time.monotonic(), 0, 0
    while killed < POINTS:
        kills = []
        while not kills or generator.random() < 0.3:  # killed again, somewhere in what is left
            what = generator.choice(("call", "disk"))
            kills.append([what, generator.randint(1, totals[what])])
        directory = tmp_path / "run"
        killed += until_done(server, config, directory, kills)
        assert_same(directory, reference)
        shutil.rmtree(directory)
        runs += 1
    seconds = time.monotonic() - began
    print(f"\nseed {SEED}: {killed} kills of {runs} runs, none of them lost or different, in {seconds:.0f} s")
