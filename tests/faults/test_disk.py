"""A disk that is full, or does not take files any more: the run stops with a clear error, and what it had stays."""

import errno
import os
import shutil
from collections import namedtuple

import pytest
from disk_calls import filling_up, watched, without_syncs
from saves import SITUATIONS, entries, prepared, save

from ftengine import disk
from ftengine.checkpoint import Store
from ftengine.errors import TrainingError

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0], ids="{:.0%}".format)
@pytest.mark.parametrize(
    "situation",
    [
        pytest.param(one, id=one.name, marks=() if one.name in ("best", "again", "background") else pytest.mark.slow)
        for one in SITUATIONS
    ],
)
def test_a_disk_that_is_full_in_the_middle_of_a_save(tmp_path, monkeypatch, situation, share):
    """After this share of its bytes, at most all but the last one."""
    monkeypatch.setattr(disk, "CHUNK", 64)
    written = []
    with without_syncs():
        run = prepared(situation, tmp_path / "run")
        with watched(after=lambda name, _, __, result: written.append(result) if name == "write" else None):
            situation.act(shutil.copytree(run, tmp_path / "whole"))
        room = min(int(share * sum(written)), sum(written) - 1)
        with filling_up(room), pytest.raises(TrainingError, match=r"could not be written: .*No space left on device"):
            situation.act(run)
        assert not list(run.rglob(".writing-*"))
        assert all(Store(run).is_whole(path) for path in Store(run).paths())
        situation.check(run)


@pytest.mark.parametrize("call", ["open", "fsync", "rename", "mkdir"])
@pytest.mark.parametrize("code", [errno.EROFS, errno.EIO, errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_disk_that_refuses(tmp_path, monkeypatch, call, code):
    store = Store(tmp_path)
    save(store, 1, best=True)

    def refuse(*arguments, **options):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises((TrainingError, OSError), match=os.strerror(code)):
            save(store, 2)
    assert store.find("last") == store.find("best") == store.folder / "step-00000001"
    assert store.is_whole(store.find("last"))
    save(store, 3)
    assert entries(tmp_path) == ["best.json", "last.json", "step-00000001", "step-00000003"]


def test_a_disk_that_is_full_during_a_run(runs, cli, monkeypatch):
    """The second checkpoint does not fit; when there is room again, the run goes on to the same end."""
    config = {"train": {"epochs": 3}}
    whole = runs(config)
    original = os.write
    failed = []

    def write(descriptor, data):
        if "step-00000006" in os.readlink(f"/proc/self/fd/{descriptor}"):
            failed.append(descriptor)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        lost = runs(config, exit_code=1)
    assert len(failed) == 1
    text = lost.result.stderr
    assert f"the checkpoint {lost.directory}/checkpoints/step-00000006 could not be written: " in text
    assert "No space left on device" in text
    assert f"the last good checkpoint stays: {lost.directory}/checkpoints/step-00000003" in text
    assert lost.checkpoint().name == "step-00000003"
    assert not list(lost.directory.rglob(".writing-*"))
    assert cli("run", "--resume", lost.directory).exit_code == 0
    assert lost.bytes() == whole.bytes()
    assert lost.bytes("best") == whole.bytes("best")


def test_a_log_that_cannot_be_written_stops_the_run_with_its_name(runs, monkeypatch):
    from ftengine.track import Tracker

    original = Tracker.log

    def log(self, step, epoch, split, values):
        if step == 4:
            self.file = self.file.with_name("full")
            self.file.symlink_to("/dev/full")
        return original(self, step, epoch, split, values)

    monkeypatch.setattr(Tracker, "log", log)
    lost = runs(exit_code=1)
    assert "/full: No space left on device" in lost.result.stderr
    assert lost.checkpoint().name == "step-00000003"


def test_too_little_room_for_a_run_is_said_before_it(runs, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 1_500_000))
    refused = runs(exit_code=1)
    assert "the run, with 3 checkpoints at most, needs 3." in refused.result.stderr
    assert " MB, and only 1.5 MB of the disk are free" in refused.result.stderr
    assert not refused.directory.exists()
    more = runs({"checkpoint": {"keep": 5}}, exit_code=1)
    assert "the run, with 7 checkpoints at most, needs 7." in more.result.stderr


def test_too_little_room_for_a_checkpoint_is_said_before_it(runs, cli, monkeypatch):
    original = shutil.disk_usage

    def usage(path):
        return Usage(10**12, 0, 1000) if (path / "best.json").exists() else original(path)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    lost = runs(exit_code=1)
    assert f"{lost.directory}/checkpoints: the checkpoint of step 6 needs 1.1 MB, and only 0.0 MB" in lost.result.stderr
    assert f"the last good checkpoint stays: {lost.directory}/checkpoints/step-00000003" in lost.result.stderr
    monkeypatch.undo()
    assert cli("run", "--resume", lost.directory).exit_code == 0


def test_an_output_folder_that_cannot_be_made(cli, config_file, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    result = cli("run", "--config", config_file(), "--output", tmp_path / "file" / "run")
    assert result.exit_code == 1
    assert f"{tmp_path}/file/run cannot be made: {tmp_path}/file is not a folder" in result.stderr


def test_an_output_folder_that_is_read_only(runs, monkeypatch):
    """Root may write everywhere, so that the system's answer is made up."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode, **_: mode == os.R_OK)
        refused = runs(exit_code=1)
    assert "cannot be written to: " in refused.result.stderr
    assert "is read-only for this user" in refused.result.stderr
    assert not refused.directory.exists()


@pytest.mark.parametrize("what", ["the run", "its checkpoints", "read-only"])
def test_an_output_folder_that_goes_during_a_run(runs, monkeypatch, what):
    from ftengine.training import Training

    original, went = Training.save, []

    def save(self):
        if self.step == 6 and not went:
            went.append(what)
            self.store.wait()
            directory = self.tracker.info.directory
            if what == "the run":
                shutil.rmtree(directory)
            elif what == "its checkpoints":
                shutil.rmtree(directory / "checkpoints")
            else:
                monkeypatch.setattr(os, "mkdir", refuse)
        return original(self)

    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Training, "save", save)
    lost = runs(exit_code=0 if what == "its checkpoints" else 1)
    monkeypatch.undo()
    if what == "the run":
        assert lost.result.stderr.startswith(f"Error: {lost.directory}/")
        assert lost.result.stderr.endswith(": No such file or directory\n")
        assert not lost.directory.exists(), "a run without its config is not made anew"
    elif what == "read-only":
        assert "step-00000006: Read-only file system" in lost.result.stderr
        assert lost.checkpoint().name == "step-00000003"
    else:
        assert lost.checkpoint().name == "step-00000006"
