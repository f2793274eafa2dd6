"""When the power goes, what was synced is there, and perhaps some of the rest: there is a whole checkpoint in it."""

import random

import pytest
from disk_calls import Disk, watched, without_syncs, write_tree
from saves import SITUATIONS, prepared

from ftengine import disk

BY_NAME = {situation.name: situation for situation in SITUATIONS}


@pytest.mark.parametrize("name", BY_NAME)
def test_what_is_written_is_synced_before_it_becomes_visible(tmp_path, name):
    """Nothing is written after its sync; a folder is renamed when all in it, and it itself, are synced; and before a
    pointer is, so is the folder that holds what it leads to."""
    situation = BY_NAME[name]
    run = prepared(situation, tmp_path / "run")
    paths, written, synced, visible = {}, set(), set(), []

    def after(call, arguments, options, result):
        if call == "open" and "dir_fd" not in options:
            paths[result] = str(arguments[0])
        elif call == "write":
            written.add(paths[arguments[0]])
            synced.discard(paths[arguments[0]])
        elif call == "fsync":
            synced.add(paths[arguments[0]])
        elif call == "mkdir":
            written.add(str(arguments[0]))
        elif call == "rename":
            old, new = map(str, arguments)
            visible.append(new)
            if old in written:
                inside = {path for path in written if path == old or path.startswith(f"{old}/")}
                assert inside <= synced, (old, inside - synced)
            if new.endswith(".json"):
                assert str(run / "checkpoints") in synced
            synced.discard(str(run / "checkpoints"))  # it holds another name now

    with watched(after=after):
        situation.act(run)
    assert str(run / "checkpoints") in synced
    assert visible[-1].endswith(".json")


@pytest.mark.parametrize("name", BY_NAME)
def test_a_loss_of_power_after_every_call(tmp_path, name, monkeypatch):
    """Only what is synced is sure to survive; of the rest nothing, all the names, or anything does."""
    monkeypatch.setattr(disk, "CHUNK", 1 << 12)
    situation = BY_NAME[name]
    run = prepared(situation, tmp_path / "run")
    model = Disk(run)
    left, moments = {}, 0  # what may be left, once each: after which call

    def after(call, *rest):
        nonlocal moments
        model(call, *rest)
        moments += 1
        for chance in ("none", "all", random.Random(moments)):
            tree = model.after_power_loss(chance)
            left.setdefault(repr(tree), (f"{call} ({moments})", tree))

    with watched(after=after):
        situation.act(run)
    assert moments >= 30
    with without_syncs():
        for number, (moment, tree) in enumerate(left.values()):
            write_tree(tree, tmp_path / f"left-{number}")
            try:
                situation.check(tmp_path / f"left-{number}")
            except Exception as error:
                raise AssertionError(f"left-{number}, after {moment}") from error
        write_tree(model.after_power_loss("none"), tmp_path / "end")
        situation.check(tmp_path / "end", done=True)


def test_a_run_is_on_the_disk_with_all_that_its_resume_needs(runs, cli, tmp_path):
    """Nothing but what was synced of a run that has ended is enough to go on from, and to end in the same way."""
    marker = runs({"train": {"epochs": 1}})
    model = Disk(marker.directory.parent)
    with watched(after=model):
        whole = runs({"checkpoint": {"every_steps": 2}})
    write_tree(model.after_power_loss("none"), tmp_path / "left")
    left = tmp_path / "left" / whole.directory.name
    assert {entry.name for entry in left.iterdir()} >= {"resolved.yaml", "start.safetensors", "metrics.jsonl"}
    (left / "summary.json").unlink()
    assert cli("run", "--resume", left).exit_code == 0
    kept = type(whole)(left, None)
    assert kept.summary["metrics"] == whole.summary["metrics"]
    assert kept.lines() == whole.lines()
    for pointer in ("last", "best"):
        assert kept.bytes(pointer) == whole.bytes(pointer)
    assert (left / "start.safetensors").read_bytes() == (whole.directory / "start.safetensors").read_bytes()
