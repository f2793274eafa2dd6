"""Processes: what they print is kept, a signal reaches them once, and how they end is told."""

import os
import signal

import pytest

from ftengine.children import StoppedBySignal, last_words, run_process, tail
from ftengine.signals import Signals


@pytest.fixture
def module(tmp_path):
    """Writes a module that a process runs; returns a function that runs it."""

    def write(source):
        (tmp_path / "child_of_a_test.py").write_text(source)

        def run(signals, *arguments, **options):
            return run_process(
                ["child_of_a_test", *arguments], tmp_path / "logs" / "log", str(tmp_path), signals, **options
            )

        return run

    return write


@pytest.fixture
def log(tmp_path):
    return tmp_path / "logs" / "log"


def test_output_is_added_to_the_log_and_the_exit_code_returned(module, log):
    run = module("import sys; print('out', sys.argv[1]); print('err', file=sys.stderr); raise SystemExit(7)")
    with Signals() as signals:
        assert run(signals, "a") == 7
        assert run(signals, "b") == 7
    assert sorted(log.read_text().split("\n")) == ["", "err", "err", "out a", "out b"]


WAITS = """
import signal, sys
received = []
signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
signal.signal(signal.SIGINT, lambda number, _: received.append(number))
print("ready", flush=True)
while not received:
    signal.pause()
print("received", *received)
raise SystemExit(128 + received[0])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handed_on_and_stops_everything(module, log, number):
    run = module(WAITS)
    sent = []

    def look():
        if not sent and "ready" in log.read_text():
            sent.append(number)
            os.kill(os.getpid(), number)

    with Signals() as signals, pytest.raises(StoppedBySignal) as stop:
        run(signals, look=look)
    assert stop.value.code == 128 + number
    assert log.read_text().splitlines() == ["ready", f"received {int(number)}"]


def test_a_process_that_was_stopped_by_another_hand_stops_everything_too(module):
    run = module("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    with Signals() as signals, pytest.raises(StoppedBySignal) as stop:
        run(signals)
    assert stop.value.code == 143


def test_a_process_does_not_outlive_what_ends_its_parent(module, log):
    run = module(WAITS)
    pids = []

    def look():
        if "ready" in log.read_text():
            pids.append(True)
            raise KeyboardInterrupt

    with Signals() as signals, pytest.raises(KeyboardInterrupt):
        run(signals, look=look)
    assert pids
    assert "received 15" in log.read_text()


def test_a_killed_process_is_a_failure(module, log):
    run = module("import os, signal; print('so far', flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    with Signals() as signals:
        code = run(signals)
    assert code == -9
    assert last_words(log, code) == "so far\nended by SIGKILL; the system may have run out of memory"


def test_the_last_words_begin_with_the_error(tmp_path):
    log = tmp_path / "log"
    log.write_text("Error: of before\n" + "line\n" * 50 + "Error: the loss is nan\n  common causes: many\n\n")
    assert last_words(log, 1) == "Error: the loss is nan\n  common causes: many"


def test_the_last_words_without_an_error_are_the_last_lines(tmp_path):
    (tmp_path / "log").write_text("".join(f"line {number}\n" for number in range(50)))
    assert last_words(tmp_path / "log", 1) == "\n".join(f"line {number}" for number in range(38, 50))
    assert last_words(tmp_path / "none", 3) == "exit code 3"


def test_the_tail_of_a_file_that_is_being_written(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert tail(file) == []
    file.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    assert tail(file) == [{"epoch": 1}, {"epoch": 2}]
    assert tail(file, size=20) == [{"epoch": 2}]
