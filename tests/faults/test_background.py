"""A save in the background: of the state as it was, the same to the byte, waited for and never failing in silence."""

import os
import threading

import pytest
import torch
from saves import entries, save, snapshot

from ftengine.checkpoint import Snapshot, Store
from ftengine.config_faults import CheckpointConfig
from ftengine.errors import TrainingError
from ftengine.saving import Saver
from ftengine.signals import Interrupted

DEADLINE = 60


@pytest.fixture
def gate(monkeypatch):
    """Syncs wait until this event is set."""
    event, original = threading.Event(), os.fsync

    def fsync(descriptor):
        assert event.wait(DEADLINE)
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    yield event
    event.set()


def saver(run, *, background=True, keep=1):
    made = Saver(run, CheckpointConfig(background=background, keep=keep), lambda path: told.append(path.name), print)
    told = made.told = []
    return made


def test_later_steps_change_nothing_of_what_is_saved(tmp_path, gate):
    weights = torch.arange(1000.0)
    state = {"step": 1, "history": [1.0], "nested": {"list": [1, 2]}}
    store = saver(tmp_path)
    store.put(1, Snapshot({"w": weights}, {}, {"w/m": weights}, state), best=True)
    weights.zero_()  # the training goes on while nothing of it is on the disk yet
    state["history"].append(2.0)
    state["nested"]["list"].clear()
    assert not (tmp_path / "checkpoints" / "last.json").exists()
    gate.set()
    loaded = store.load(store.find("last"), for_training=True)
    assert torch.equal(loaded.model["w"], torch.arange(1000.0))
    assert torch.equal(loaded.optimizer["w/m"], torch.arange(1000.0))
    assert loaded.state == {"step": 1, "history": [1.0], "nested": {"list": [1, 2]}}


def test_the_next_save_waits_for_the_one_before(tmp_path, gate):
    """The copies of both are in the same memory."""
    store = saver(tmp_path, keep=2)
    store.put(1, snapshot(1), best=True)
    threading.Timer(0.05, gate.set).start()
    store.put(2, snapshot(2), best=False)
    assert store.told == ["step-00000001"]
    store.wait()
    assert store.told == ["step-00000001", "step-00000002"]
    for step in (1, 2):
        path = store.folder / f"step-0000000{step}"
        assert store.load(path, for_training=True).model["w"].tolist() == [step] * 3


def test_what_is_written_is_the_same_to_the_byte(tmp_path):
    tensors = {
        "b": torch.randn(3, 5, 2, 2).to(memory_format=torch.channels_last),
        "a": torch.randn(7).bfloat16(),
        "count": torch.tensor(7),
        "view": torch.arange(10)[::2],
        "empty": torch.empty(0, 4),
    }
    tensors["tied"] = tensors["b"]
    made = []
    for background in (False, True):
        run = tmp_path / f"run-{background}"
        run.mkdir()
        state = {"step": 3, "value": 0.1, "name": "grün"}
        with saver(run, background=background) as store:
            store.put(3, Snapshot(tensors, {"w": torch.ones(2)}, {"a/m": torch.zeros(())}, state), best=True)
        assert store.told == ["step-00000003"]
        folder = run / "checkpoints"
        made.append({path.relative_to(run): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert len(made[0]) == 7
    assert made[0] == made[1]


def test_a_pointer_is_read_when_what_is_being_written_is_there(tmp_path, gate):
    save_in = threading.Timer(0.05, gate.set)
    store = saver(tmp_path)
    store.put(1, snapshot(1), best=True)
    save_in.start()
    assert store.find("last").name == "step-00000001"
    assert store.load(store.find("best"), for_training=True).state == {"step": 1}
    assert store.told == ["step-00000001"]


def failing(monkeypatch):
    """The first sync from now on fails."""
    original = os.fsync

    def fail(descriptor):
        monkeypatch.setattr(os, "fsync", original)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("ask", ["put", "poll", "wait", "find", "leave"])
def test_what_goes_wrong_in_the_background_is_raised_in_the_training(tmp_path, monkeypatch, ask):
    store = saver(tmp_path)
    save(Store(tmp_path), 1, best=True)
    failing(monkeypatch)
    store.put(2, snapshot(2), best=False)
    store._thread.join()
    asks = {
        "put": lambda: store.put(3, snapshot(3), best=False),
        "poll": store.poll,
        "wait": store.wait,
        "find": lambda: store.find("last"),
        "leave": lambda: store.__exit__(None, None, None),
    }
    with pytest.raises(TrainingError, match=r"step-00000002 could not be written: .*Input/output error"):
        asks[ask]()
    assert store.told == []
    store.wait()  # it is raised once
    assert store.find("last").name == "step-00000001"
    assert entries(tmp_path) == ["best.json", "last.json", "step-00000001"]


def trains(store, fails):
    """What a run does: it saves, and ends as `fails` says."""
    with store:
        store.put(2, snapshot(2), best=False)
        raise fails


def test_what_goes_wrong_beside_another_error_is_told(tmp_path, monkeypatch, capsys):
    failing(monkeypatch)
    with pytest.raises(ValueError, match="the other"):
        trains(saver(tmp_path), ValueError("the other"))
    assert "step-00000002 could not be written" in capsys.readouterr().out


def test_what_goes_wrong_while_a_signal_ends_the_run_is_raised(tmp_path, monkeypatch):
    """What it says then, that everything is saved, would not be true."""
    failing(monkeypatch)
    with pytest.raises(TrainingError, match="step-00000002 could not be written"):
        trains(saver(tmp_path), Interrupted("SIGTERM"))


@pytest.mark.parametrize("fails", [ValueError("of the training"), Interrupted("SIGTERM")], ids=repr)
def test_nothing_that_is_being_written_is_lost_however_the_training_ends(tmp_path, fails):
    with pytest.raises(type(fails)):
        trains(saver(tmp_path), fails)
    assert Store(tmp_path).find("last").name == "step-00000002"


@pytest.mark.parametrize("changes", [{"train": {"ema": 0.9}}, {"checkpoint": {"every_steps": 1, "keep": 2}}], ids=str)
def test_runs_that_save_in_the_background_and_not_are_the_same(runs, changes):
    """Every file of every checkpoint but the times in its state."""
    made = []
    for background in (False, True):
        run = runs({**changes, "checkpoint": {**changes.get("checkpoint", {}), "background": background}})
        folder = run.directory / "checkpoints"
        made.append({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")})
        assert run.lines("train")[-1]["step"] == 6
    assert made[0].keys() == made[1].keys()
    assert made[0] == made[1]
    kept = {name.partition("/")[0] for name in made[1]}
    if "checkpoint" in changes:
        assert {"step-00000005", "step-00000006"} <= kept
    else:
        assert "step-00000006" in kept
