"""``train.batch_size: auto`` on a machine that has room for so many images, or so many bytes."""

import pytest
import torch

from ftengine import batch_size, memory
from ftengine.identical import compare_runs
from ftengine.model import Model

AUTO = {"data": {"limit": 128, "val_fraction": 0.25}, "train": {"batch_size": "auto", "epochs": 1}}
"""96 images to train on: 8 steps an epoch leave no more than 12 images each."""
ROOMY = {"data": {"limit": 640}, "train": {"batch_size": "auto", "epochs": 1, "log_every": 100}}
"""480 images: no more than 60 a step."""
HALL = {**ROOMY, "data": {"limit": 320}}
"""240 images: no more than 30 a step."""
FIRST = ("--stop-after", 1)
"""Where what is found is all that is looked at."""


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A machine that is busy with something else is not taken for a slow one."""
    monkeypatch.setattr(batch_size, "SECONDS", 1e9)


@pytest.fixture
def room(monkeypatch):
    """Memory is out where more than so many images are trained on at once."""
    most, forward, tried = [10**6], Model.forward, []

    def limited(model, batch, tasks):
        if torch.is_grad_enabled():
            tried.append(len(batch))
            if len(batch) > most[0]:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has none left.")
        return forward(model, batch, tasks)

    monkeypatch.setattr(Model, "forward", limited)

    def set_room(images):
        most[0] = images
        return tried

    return set_room


def test_an_epoch_keeps_eight_steps(runs, cli):
    run = runs(AUTO)
    assert run.resolved["train"]["batch_size"] == 8
    assert "train.batch_size: auto is 8: with 16 an epoch would have fewer than 8 steps, or none" in run.result.stdout
    again = runs({**AUTO, "train": {"batch_size": 8, "epochs": 1}})
    assert compare_runs(run.directory, again.directory).differences == [], "the search has left no trace"


@pytest.mark.parametrize(("images", "accumulate", "found"), [(9, 3, 24), (10**6, 1, 32)])
def test_it_is_the_largest_that_fits(runs, room, images, accumulate, found):
    tried = room(images)
    run = runs({**ROOMY, "train": {**ROOMY["train"], "accumulate": accumulate}}, *FIRST, exit_code=143)
    assert run.resolved["train"]["batch_size"] == found
    if images < 32:
        assert max(tried) > images
        assert f"with {2 * found} it is out of memory in " in run.result.stdout


def test_a_resumed_run_keeps_the_number(runs, cli, room, config_file):
    room(9)
    stopped = runs(HALL, "--stop-after", 3, exit_code=143)
    room(5)  # would be 4 now; and 8 in two parts do not fit either
    result = cli("run", "--resume", stopped.directory)
    assert "out of memory" in result.stderr
    tried = room(10**6)
    tried.clear()
    result = cli("run", "--resume", stopped.directory, "--config", config_file(HALL))
    assert result.exit_code == 0, result.output
    assert set(tried) == {8}
    assert stopped.resolved["train"]["batch_size"] == 8
    room(9)
    assert compare_runs(stopped.directory, runs(HALL).directory).differences == []


def test_continue_keeps_the_number(runs, cli, room, config_file):
    room(9)
    stopped = runs(HALL, "--stop-after", 3, exit_code=143)
    tried = room(10**6)
    tried.clear()
    command = ("run", "--config", config_file(HALL), "--output", stopped.directory, "--continue")
    result = cli(*command)
    assert result.exit_code == 0, result.output
    assert "auto is" not in result.stdout
    assert set(tried) == {8}
    assert stopped.resolved["train"]["batch_size"] == 8
    assert cli(*command, "--set", "optimizer.lr=0.5").exit_code == 2, "another config is another run still"


def test_nothing_is_searched_for_a_run_that_is_resumed(config_file, tmp_path, third_party):
    from rich.console import Console

    from ftengine.errors import ConfigError
    from ftengine.resolve import load
    from ftengine.run import assemble
    from ftengine.signals import Signals

    with pytest.raises(ConfigError, match="auto is found where a run starts"):
        assemble(load(config_file(ROOMY)), tmp_path, Console(quiet=True), Signals(), resume=True)


def test_not_even_the_smallest_fits(runs, room):
    room(1)
    result = runs(ROOMY, exit_code=1).result
    assert "out of memory in a batch of 2 images: CUDA out of memory. Tried to allocate 2.00 GiB." in result.stderr
    assert "lower train.batch_size or image.size" in result.stderr


def test_too_few_samples(runs):
    result = runs({"data": {"limit": 16}, "train": {"batch_size": "auto"}}, exit_code=1).result
    assert "12 training samples are too few for that; give a number" in result.stderr


def test_on_a_cpu_it_stops_before_the_memory_is_out(runs, monkeypatch):
    """Steps of 2, 4, 8, … images need 1, 2, 4, … of the 10 MiB: 16 would be 8, and of the next one only 80 % is."""
    asked = []

    class Peak(memory.PeakMemory):
        @property
        def bytes(self):
            asked.append(2 ** len(asked) * 2**20)
            return asked[-1]

    monkeypatch.setattr(batch_size, "PeakMemory", Peak)
    monkeypatch.setattr(batch_size, "available_memory", lambda: 10 * 2**20)
    run = runs(ROOMY, *FIRST, exit_code=143)
    assert run.resolved["train"]["batch_size"] == 16
    assert "auto is 16: 32 would need about 0.0 of the 0.0 GiB that are available" in run.result.stdout
    assert asked == [2**20, 2 * 2**20, 4 * 2**20, 8 * 2**20]


def test_a_slow_step_is_the_last(runs, monkeypatch):
    monkeypatch.setattr(batch_size, "SECONDS", 0.0)
    run = runs(ROOMY, *FIRST, exit_code=143)
    assert run.resolved["train"]["batch_size"] == 2
    assert "a step with it takes 0 seconds on this CPU" in run.result.stdout


def test_it_is_tried_with_all_that_trains_later(runs, monkeypatch):
    """Frozen at first, free in the last epoch; an average beside it; numbers that break are not at issue."""
    seen = []
    take = batch_size.take_step

    def noted(run, feeds, step):
        seen.append((sum(p.requires_grad for p in run.model.parameters()), run.average is not None))
        take(run, feeds, step)

    monkeypatch.setattr(batch_size, "take_step", noted)
    changes = {"freeze": {"name": "gradual"}, "train": {"batch_size": "auto", "epochs": 4, "ema": 0.9}}
    run = runs({**changes, "data": AUTO["data"]}, *FIRST, exit_code=143)
    assert {average for _, average in seen} == {True}
    assert {trains for trains, _ in seen} == {
        len([n for n in run.tensors() if n.endswith(("weight", "bias")) and "mean" not in n])
    }


def test_what_cannot_have_it_says_so(cli, config_file, tmp_path):
    file = config_file(ROOMY)
    result = cli("compare", "--config", file, "--strategies", "probe,full", "--output", tmp_path / "compare")
    assert result.exit_code != 0
    assert "train.batch_size: auto may find another number for each strategy" in result.output
    result = cli("verify-resume", "--config", file)
    assert result.exit_code != 0
    assert "train.batch_size: auto is found where a run starts; give a number here" in result.output


def test_several_processes_cannot_have_it(config_file, third_party, tmp_path):
    from rich.console import Console

    from ftengine.dist import World
    from ftengine.errors import ConfigError
    from ftengine.launch import Launch
    from ftengine.resolve import load
    from ftengine.run import assemble
    from ftengine.signals import Signals

    plan = load(config_file(ROOMY))
    with pytest.raises(ConfigError, match="auto is not found by 2 processes together; give a number"):
        assemble(plan, tmp_path, Console(quiet=True), Signals(), World(Launch(0, 2, 0)), resume=False)


def test_commands_that_only_read_know_it(cli, config_file):
    file = config_file(ROOMY)
    assert cli("config", "check", file).exit_code == 0
    result = cli("config", "show", file)
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("train.batch_size"))
    assert line.split()[1] == "auto"
    result = cli("config", "check", config_file({"train": {"batch_size": "all"}}))
    assert result.exit_code == 2
    assert "train.batch_size" in result.output


def test_the_range_test_finds_it_too(cli, config_file, third_party, tmp_path):
    result = cli("lr-find", "--config", config_file(AUTO), "--steps", 10)
    assert result.exit_code == 0, result.output
    assert "train.batch_size: auto is 8" in result.output
