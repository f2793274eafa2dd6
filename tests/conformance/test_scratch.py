"""The temporary folders of the kit's runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from ftengine.testing.scratch import Scratch

pytest.importorskip("fcntl")

HOLD = """
from ftengine.testing.scratch import Scratch
scratch = Scratch()
(scratch.path / "model.safetensors").write_text("large")
print(scratch.path, flush=True)
input()
"""


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_is_in_use_stays(place):
    (place / "ftengine-check").mkdir()  # somebody's own
    first = Scratch()
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        theirs = other.stdout.readline().strip()
        second = Scratch()
        assert {path.name for path in place.iterdir()} == {"ftengine-check", *_names(first, second), Path(theirs).name}
        other.kill()
    third = Scratch()
    assert {path.name for path in place.iterdir()} == {"ftengine-check", *_names(first, second, third)}
    for one in (first, second, third):
        one.cleanup()
    assert [path.name for path in place.iterdir()] == ["ftengine-check"]


def _names(*made):
    return {one.path.name for one in made}


def test_without_locks_nothing_of_others_is_removed(place, monkeypatch):
    left = place / "ftengine-check-left"
    left.mkdir()
    monkeypatch.setattr("ftengine.claim.fcntl", None)
    Scratch().cleanup()
    assert left.is_dir()


def test_a_folder_that_was_taken_for_one_that_was_left_is_made_anew(place, monkeypatch):
    """Between the making of a folder and its lock another process may remove it."""
    from contextlib import contextmanager

    from ftengine.testing import scratch

    taken = []

    @contextmanager
    def late(directory, **options):
        if not taken:
            taken.append(directory)
            directory.rmdir()
        with claim(directory, **options):
            yield

    claim = scratch.claim
    monkeypatch.setattr(scratch, "claim", late)
    made = Scratch()
    assert taken
    assert made.path not in taken
    assert made.path.is_dir()
    made.cleanup()
