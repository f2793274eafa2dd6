"""Processes that load data and die or hang: they are named with their sample, and nothing of them is left."""

import json
import multiprocessing
import os
import signal
import threading

import pytest
from same_runs import assert_same
from torch.utils.data import get_worker_info

from ftengine.config import ImageConfig
from ftengine.data import Split
from ftengine.errors import WorkerError
from ftengine.loading import LoaderSettings, batches
from ftengine.order import in_order
from ftengine_datasets.digits import Digits

KILLED = "was ended by SIGKILL while it was reading sample {}\n  the system may have run out of memory: lower train.wor"
HARM = {
    "killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), KILLED),
    "hanging": (threading.Event().wait, "no batch has come for 3 seconds (train.worker_timeout):\n  process "),
}
EPOCHS = {"train": {"epochs": 4, "log_every": 4}}


@pytest.fixture(autouse=True)
def _none_is_left():
    yield
    assert multiprocessing.active_children() == []


def samples(run, split):
    """The names of a split's samples."""
    lines = (run.directory / "samples" / f"data-{split}.jsonl").read_text().splitlines()[1:]
    return [json.loads(line)[0] for line in lines]


@pytest.fixture
def harm(monkeypatch, tmp_path):
    """Lets something happen in the process that reads a sample for the fourth time: that is three epochs ahead, and
    the workers are not more than two ahead of the training."""

    def set_up(name, what, reads=4):
        image, seen = Digits.image, tmp_path / "seen"

        def harmful(self, index):
            if self.sample_id(index) == name and get_worker_info() is not None:
                with seen.open("ab") as file:
                    file.write(b".")
                if seen.stat().st_size == reads:
                    what()
            return image(self, index)

        monkeypatch.setattr(Digits, "image", harmful)

    return set_up


@pytest.fixture(scope="module")
def whole(runs):
    return runs(EPOCHS)


@pytest.mark.parametrize(
    ("kind", "split"),
    [
        ("killed", "train"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("killed", "val"), ("hanging", "train"))),
    ],
)
def test_a_worker_is_lost(runs, cli, whole, harm, monkeypatch, kind, split):
    name = samples(whole, split)[5]
    what, text = HARM[kind]
    harm(name, what)
    settings = {"workers": 2, "worker_timeout": 3 if kind == "hanging" else 300}
    lost = runs({"train": {**EPOCHS["train"], **settings}, "checkpoint": {"background": False}}, exit_code=1)
    said = lost.result.stderr
    assert text.format(name) in said
    assert f"reading sample {name}\n" in said
    assert " of 2 that load data (pid " in said
    assert f"the last good checkpoint stays: {lost.checkpoint()}" in said
    assert not (lost.directory / "summary.json").exists()
    if split == "val":
        assert lost.checkpoint().name == "step-00000009", "it was saved before the evaluation"
        assert [line["step"] for line in lost.lines("val")] == [0, 3, 6]
    monkeypatch.undo()
    assert cli("run", "--resume", lost.directory).exit_code == 0
    assert_same(lost.directory, whole.directory)


def test_evaluation_and_prediction_name_the_sample(cli, whole, harm, monkeypatch, image_folder, tmp_path):
    name = samples(whole, "val")[3]
    harm(name, HARM["killed"][0], reads=1)
    result = cli("evaluate", whole.directory, "--set", "train.workers=2")
    assert result.exit_code == 1
    assert KILLED.format(name) in result.stderr
    folder = image_folder(tmp_path / "images", count=2)

    def read(path):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("ftengine.inference.read_image", read)
    result = cli("predict", whole.directory, folder, "--set", "train.workers=1")
    assert result.exit_code == 1
    assert KILLED.format(folder / "blue" / "0.png") in result.stderr


class Numbers:
    """Images of one pixel; `act` is called with each index that a worker reads."""

    names = {}  # noqa: RUF012

    def __init__(self, act):
        self.act = act

    def __len__(self):
        return 12

    def target(self, index):
        return {}

    def image(self, index):
        import numpy as np

        self.act(index)
        return np.zeros((8, 8, 3), np.uint8)

    def mask(self, index):
        raise NotImplementedError

    def sample_id(self, index):
        return f"n{index}"


def numbers(act=lambda index: None):
    return Split(Numbers(act), {}, {}, ImageConfig(size=8, fit="stretch"))


def test_a_worker_that_dies_between_samples_is_named_with_its_next_batch():
    split = numbers()
    settings = LoaderSettings(workers=2)
    made = batches(split, in_order(12, 2), settings)
    next(made)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"before it had made the next batch, of n\d+, n\d+\n|after its last batch"):
        list(made)


def test_a_worker_that_dies_where_a_batch_is_made_is_named_with_the_batch(monkeypatch):
    split = numbers()
    collate = split.collate

    def deadly(items):
        if items[0].id == "n4":
            os.kill(os.getpid(), signal.SIGKILL)
        return collate(items)

    monkeypatch.setattr(split, "collate", deadly)
    with pytest.raises(WorkerError, match="while it was making the batch of n4, n5\n"):
        list(batches(split, in_order(12, 2), LoaderSettings(workers=2)))


def test_a_worker_that_exits_is_named_with_its_sample():
    split = numbers(lambda index: os._exit(3) if index == 6 else None)
    with pytest.raises(WorkerError, match="has ended with exit code 3 while it was reading sample n6\n  a library may"):
        list(batches(split, in_order(12, 2), LoaderSettings(workers=2)))


def test_all_that_hang_are_named():
    hang = threading.Event()
    split = numbers(lambda index: hang.wait() if index in (1, 2) else None)
    with pytest.raises(WorkerError, match=r"(?s)process 1 of 2.*hangs while it was reading sample n1\n.*sample n2\n"):
        list(batches(split, in_order(12, 2), LoaderSettings(workers=2, timeout=2)))


def test_workers_that_cannot_be_started_are_an_error(monkeypatch):
    def refuse(self):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.context.ForkProcess, "start", refuse)
    with pytest.raises(WorkerError, match="2 processes that load data could not be started: Resource temporarily unav"):
        list(batches(numbers(), in_order(12, 2), LoaderSettings(workers=2)))


def test_workers_in_the_middle_of_a_sample_end_with_the_iterator():
    """Without waiting for the sample: torch alone would wait for seconds, and then leave those that ignore SIGTERM."""
    hang = threading.Event()
    split = numbers(lambda index: hang.wait() if index >= 4 else None)
    made = batches(split, in_order(12, 2), LoaderSettings(workers=2))
    next(made)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    made.close()
    assert all(worker.exitcode is not None for worker in workers)


def test_signals_leave_workers_alone():
    made = batches(numbers(), in_order(12, 2), LoaderSettings(workers=2))
    found = [next(made).ids]
    for worker in multiprocessing.active_children():
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker.pid, number)
    found += [batch.ids for batch in made]
    assert found == [[f"n{index}", f"n{index + 1}"] for index in range(0, 12, 2)]


def test_the_death_of_a_worker_raises_nothing_elsewhere():
    """torch's own handler would raise in the main thread, wherever that is, be it in the middle of saving."""
    made = batches(numbers(), in_order(12, 2), LoaderSettings(workers=1))
    next(made)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    made.close()
