"""One run at a time in a run directory."""

import subprocess
import sys

import pytest

from ftengine.claim import claim
from ftengine.errors import CheckpointError

pytest.importorskip("fcntl")

HOLD = """
import sys, pathlib
from ftengine.claim import claim
with claim(pathlib.Path(sys.argv[1])):
    print(flush=True)
    input()
"""


def test_a_second_claim_is_refused_until_the_first_ends(tmp_path):
    refused = pytest.raises(CheckpointError, match="another process is training in this directory")
    with claim(tmp_path), refused, claim(tmp_path):
        pass
    with claim(tmp_path):
        assert not any(tmp_path.iterdir())


def test_a_killed_process_holds_nothing(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(CheckpointError), claim(tmp_path):
            pass
        holder.kill()
    with claim(tmp_path):
        pass
