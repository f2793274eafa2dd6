"""What is shown while a comparison runs, and the time that is left."""

import io
import json

import pytest
from rich.console import Console
from test_compare_report import comparison, summary

from ftengine.compare import progress as compare_progress
from ftengine.compare.progress import Display
from ftengine.compare.report import Outcome


@pytest.fixture
def clock(monkeypatch):
    """The time by the display's clock, which the test sets."""
    now = [0.0]
    monkeypatch.setattr(compare_progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def shown(tmp_path, clock):
    """A display of two strategies with two seeds and five epochs each, and what it prints."""

    def make(*, terminal):
        given = comparison("probe", "full", seeds=[0, 1])
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False, markup=False)
        return Display(given, given.runs(tmp_path), console)

    return make


def at_epoch(run, epoch):
    run.directory.mkdir(parents=True, exist_ok=True)
    (run.directory / "metrics.jsonl").write_text(json.dumps({"step": 1, "epoch": epoch, "split": "val"}) + "\n")


def test_the_time_that_is_left_is_that_of_runs_like_those_that_are_done(shown, clock):
    display = shown(terminal=True)
    first, second, third, _ = display.runs
    with display:
        assert display.remaining() is None
        display.start(first)
        clock[0] = 20.0
        at_epoch(first, 2.0)
        display.look()
        assert display.remaining() == pytest.approx(30 + 3 * 50)  # 20 s for 2 of 5 epochs: 50 s a run
        clock[0] = 60.0
        display.end(Outcome(first, summary(0.5)))
        assert display.remaining() == pytest.approx(3 * 60)
        display.start(second)
        clock[0] = 70.0
        assert display.remaining() == pytest.approx(50 + 2 * 60)
        clock[0] = 80.0
        display.end(Outcome(second, summary(0.5)))
        assert display.remaining() == pytest.approx(60 + 20)
        display.start(third)
        display.end(Outcome(third, error="Error: out of memory"))
        assert display.remaining() == pytest.approx(20)


def test_on_a_terminal_a_table_fills(shown):
    display = shown(terminal=True)
    first, second, third, _ = display.runs
    with display:
        display.end(Outcome(first, summary(0.75)), before=True)
        display.start(second)
        at_epoch(second, 2.25)
        display.look()
        display.end(Outcome(third, error="Error: out of memory"))
    text = display.console.file.getvalue()
    for part in ("0.75", "epoch 3/5", "failed", "1 of 4 runs done", "2 of 4 runs done"):
        assert part in text


def test_elsewhere_lines_are_printed(shown, clock):
    display = shown(terminal=False)
    first, second, third, _ = display.runs
    with display:
        display.end(Outcome(first, summary(0.75)), before=True)
        display.start(second)
        clock[0] = 12.0
        display.end(Outcome(second, summary(0.5)))
        display.start(third)
        display.end(Outcome(third, error="Error: first\nsecond"))
    assert display.console.file.getvalue().splitlines() == [
        "run 2 of 4: full, seed 0",
        "  accuracy 0.5 on val in 10 s; about 22 s left",  # 10 s for probe, by its summary, and 12 s for full
        "run 3 of 4: probe, seed 1",
        "  failed: Error: first",
        "  second",
    ]
