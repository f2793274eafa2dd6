"""Fifty installed plugins, of which five are broken: all are listed, each with its status and its cause."""

import json
import subprocess
import sys

from benchmarks.many_plugins import BROKEN, install

PROBE = """
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
from ftengine.cli import main
main(["plugins", "--json"])
"""


def test_all_are_listed_with_the_right_status_and_without_torch(tmp_path, monkeypatch):
    working = install(tmp_path)
    assert len(working) + len(BROKEN) == 50
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert done.stderr == "False\n"
    listed = json.loads(done.stdout)
    status = {record["name"]: (record["status"], record["cause"]) for record in listed["plugins"]}
    assert len(listed["plugins"]) == len(status) == 50 + sum(record["builtin"] for record in listed["plugins"])
    assert {name: status[name] for name in working} == dict.fromkeys(working, ("ok", None))
    for name, (_, expected, cause) in BROKEN.items():
        assert status[name][0] == expected
        assert status[name][1].startswith(cause)
    own = [item["name"] for item in listed["components"] if item["plugin"] in working]
    kinds = ("tiny", "tempered", "error_rate")
    assert sorted(own) == sorted(f"{name}/{component}" for name in working for component in kinds)
