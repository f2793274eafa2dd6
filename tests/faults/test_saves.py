"""A process that is killed inside a save, at any point of it, leaves a whole checkpoint, and the next save works."""

import os
import shutil
import signal

import pytest
from disk_calls import watched, without_syncs
from saves import SITUATIONS, entries, prepared, save

from ftengine import disk
from ftengine.checkpoint import Store


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Files are written in several parts."""
    monkeypatch.setattr(disk, "CHUNK", 64)


@pytest.fixture(autouse=True)
def no_syncs():
    with without_syncs():
        yield


CHANGES = ("write", "fsync", "rename", "mkdir", "unlink", "rmdir")
"""Calls that change what is on the disk; where a file is only opened or closed, that is as before the next of them."""


def in_process(act, run, kill_at):
    """`act(run)` in a process of its own that is killed before the `kill_at`-th change; its exit code."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def before(name, *_):
            nonlocal count
            count += name in CHANGES
            if name in CHANGES and count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            with watched(before=before):
                act(run)
        finally:
            os._exit(7)  # it came to its end, or raised: neither is to happen
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    "situation",
    [pytest.param(one, id=one.name, marks=() if one.name == "best" else pytest.mark.slow) for one in SITUATIONS],
)
def test_a_kill_at_every_write_sync_and_rename_inside_a_save(tmp_path, situation):
    template = prepared(situation, tmp_path / "template")
    whole = shutil.copytree(template, tmp_path / "whole")
    calls = []
    with watched(before=lambda name, *_: calls.append(name) if name in CHANGES else None):
        situation.act(whole)
    situation.check(whole, done=True)
    assert {"write", "fsync", "mkdir", "rename"} <= set(calls)
    assert len(calls) >= (50 if situation.name == "after a kill" else 20)
    for number in range(1, len(calls) + 1):
        run = shutil.copytree(template, tmp_path / f"run-{number}")
        assert in_process(situation.act, run, number) == -signal.SIGKILL, (number, calls[number - 1])
        situation.check(run)
        shutil.rmtree(run)


def test_a_crash_between_save_and_clean_up_leaves_nothing_wrong(tmp_path, monkeypatch):
    """The checkpoints before are still there, though nothing leads to them; the next save removes them."""
    store = Store(tmp_path)
    save(store, 1, best=True)
    save(store, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "prune", lambda self: None)
        save(store, 3, best=True)
    assert entries(tmp_path) == ["best.json", "last.json", "step-00000001", "step-00000002", "step-00000003"]
    assert store.find("last") == store.find("best") == store.folder / "step-00000003"
    save(store, 4)
    assert entries(tmp_path) == ["best.json", "last.json", "step-00000003", "step-00000004"]


def test_a_pointer_that_was_half_written_is_removed(tmp_path):
    """A run that is over writes none any more: it was killed as it pointed at the step that it pointed at before."""
    store = Store(tmp_path)
    save(store, 1, best=True)
    for pointer in ("last", "best"):
        (store.folder / f".{pointer}.json").write_text('{"checkp')
    store.prune()
    assert entries(tmp_path) == ["best.json", "last.json", "step-00000001"]


def test_the_latest_stay_beside_the_best(tmp_path):
    store = Store(tmp_path, keep=3)
    save(store, 1, best=True)
    for step in range(2, 7):
        save(store, step)
    names = [f"step-0000000{step}" for step in (1, 4, 5, 6)]
    assert entries(tmp_path) == ["best.json", "last.json", *names]
    save(store, 7, best=True)
    assert entries(tmp_path) == ["best.json", "last.json", *names[2:], "step-00000007"]


def test_what_cannot_be_removed_stays_until_it_can(tmp_path, monkeypatch):
    store = Store(tmp_path)
    save(store, 1)
    with monkeypatch.context() as patch:

        def refuse(*arguments, **options):
            raise PermissionError(13, "Permission denied", "x")

        patch.setattr(os, "unlink", refuse)
        patch.setattr(os, "rmdir", refuse)
        save(store, 2)
    assert entries(tmp_path) == ["last.json", "step-00000001", "step-00000002"]
    save(store, 3)
    assert entries(tmp_path) == ["last.json", "step-00000003"]


def test_other_people_s_files_stay(tmp_path):
    store = Store(tmp_path)
    save(store, 1)
    (store.folder / "step-by-step.txt").touch()
    (store.folder / "notes").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    (store.folder / "step-00000000").symlink_to(elsewhere)
    save(store, 2)
    assert entries(tmp_path) == ["last.json", "notes", "step-00000002", "step-by-step.txt"]
    assert (elsewhere / "file").exists(), "only the link goes"
