"""Saves of tiny checkpoints in every situation that a save can find, for whatever may go wrong in them."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from ftengine.checkpoint import Snapshot, Store
from ftengine.config_faults import CheckpointConfig
from ftengine.errors import CheckpointError
from ftengine.recovery import last_checkpoint
from ftengine.saving import Saver


def snapshot(step, value=None, size=3):
    """Tensors that hold the number of the step, or `value`; with an average, as all files are there then."""
    value = float(step if value is None else value)
    model, training = {"w": torch.full((size,), value)}, {"w": torch.full((size,), value + 0.5)}
    return Snapshot(model, training, {"w/m": torch.full((size,), -value)}, {"step": step})


def save(store, step, best=False, value=None):
    return store.save(step, snapshot(step, value), best=best)


def in_background(run, step, best=False, keep=1):
    with Saver(run, CheckpointConfig(keep=keep, background=True), lambda path: None, print) as saver:
        saver.put(step, snapshot(step), best=best)


def mix(store, step):
    """What a run does with the mixture of its end and its start."""
    store.point("best", store.write(f"step-{step:08d}-mixed", snapshot(step)))
    store.prune()


def entries(run):
    return sorted(entry.name for entry in (run / "checkpoints").iterdir())


@dataclass(frozen=True)
class Situation:
    """`prepare(run)` makes a run directory, `act(run)` saves once more; `last` and `best` are the steps that these
    pointers may lead to whenever `act` is cut off (None: nowhere), the last one of each when it is not."""

    name: str
    prepare: object
    act: object
    last: tuple
    best: tuple

    def check(self, run, done=False):
        """Raises AssertionError unless each pointer leads to a whole checkpoint, a run goes on from there, and the next
        save works and cleans up."""
        store = Store(run)
        for pointer, allowed in (("last", self.last), ("best", self.best)):
            found = store.find(pointer)
            step = None if found is None else int(found.name.removeprefix(".replaced-").split("-")[1])
            assert step in (allowed[-1:] if done else allowed), (pointer, step)
            if found is not None:
                mixed = found.name.endswith("-mixed")
                loaded = store.load(found, for_training=not mixed)
                assert loaded.state == {"step": step}
                assert loaded.model["w"].tolist() == [step] * 3 or loaded.model["w"].tolist() == [-step] * 3
                assert mixed or loaded.optimizer["w/m"].tolist() == [-value for value in loaded.model["w"].tolist()]
        told = []
        if store.paths():
            assert last_checkpoint(store, run, told.append).state["step"] in self.last
        else:
            assert None in self.last
            with pytest.raises(CheckpointError, match="if the run ended before its first, start it again"):
                last_checkpoint(store, run, told.append)
        assert not told or (None in self.last and "last.json is missing" in told[0]), told
        save(store, 9, best=True)
        assert entries(run) == ["best.json", "last.json", "step-00000009"]
        assert Store(run).load(store.find("last"), for_training=True).state == {"step": 9}


def _two(run):
    save(Store(run), 1, best=True)
    save(Store(run), 2)


def _orphan(run):
    """A run was killed after the folder of step 3 was visible, and another one while it wrote that again."""
    _two(run)
    folder = run / "checkpoints"
    shutil.copytree(folder / "step-00000002", folder / "step-00000003")
    shutil.copytree(folder / "step-00000002", folder / ".writing-step-00000003")
    (folder / ".writing-step-00000003" / "state.json").write_text("{")
    (folder / ".last.json").write_text("{")


def _half_replaced(run):
    """A run was killed between the two renames of a step that is saved again."""
    _two(run)
    folder = run / "checkpoints"
    (folder / "step-00000002").rename(folder / ".replaced-step-00000002")


def _nothing(run):
    """A run before its first checkpoint."""


SITUATIONS = [
    Situation("first", _nothing, lambda run: save(Store(run), 1, best=True), (None, 1), (None, 1)),
    Situation("next", _two, lambda run: save(Store(run), 3), (2, 3), (1,)),
    Situation("best", _two, lambda run: save(Store(run), 3, best=True), (2, 3), (1, 3)),
    Situation("keep two", _two, lambda run: save(Store(run, keep=2), 3), (2, 3), (1,)),
    Situation("again", _two, lambda run: save(Store(run), 2, best=True, value=-2), (2,), (1, 2)),
    Situation("again, cut off before", _half_replaced, lambda run: save(Store(run), 2), (2,), (1,)),
    Situation("after a kill", _orphan, lambda run: save(Store(run), 3, best=True), (2, 3), (1, 3)),
    Situation("mixture", _two, lambda run: mix(Store(run), 2), (2,), (1, 2)),
    Situation("background", _two, lambda run: in_background(run, 3, best=True), (2, 3), (1, 3)),
]


def prepared(situation, folder) -> Path:
    """A new run directory at `folder` in this situation."""
    folder.mkdir()
    situation.prepare(folder)
    return folder
