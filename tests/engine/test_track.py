"""What a run says: JSON lines, lines for a person, and observers that may fail."""

import io
import json
import math
import sys

import pytest
from rich.console import Console
from tiny import make_model

from ftengine.host import Host
from ftengine.model import summarise
from ftengine.optim import build_optimizer
from ftengine.optimizers import OPTIMIZERS
from ftengine.plugin import RunInfo
from ftengine.track import Tracker, make_console, show_results

OBSERVER = """
seen = []

@hookimpl
def run_started(run):
    seen.append(("started", run.total_steps))

@hookimpl
def metrics_logged(run, step, values):
    seen.append(("logged", step, dict(values)))
    {after}

@hookimpl
def run_finished(run, outcome):
    seen.append(("finished", outcome))
"""


@pytest.fixture
def tracker(tmp_path, distributions):
    def make(**observers):
        for name, after in observers.items():
            distributions.plugin(name, OBSERVER.format(after=after))
        output = io.StringIO()
        made = Tracker(RunInfo(tmp_path, ("a",), {}, 10), Host.discover(), Console(file=output, width=100), 12)
        made.output = output
        return made

    return make


def lines(tracker):
    return [json.loads(line) for line in tracker.file.read_text().splitlines()]


def test_a_line_for_each_call_with_step_epoch_and_split(tracker):
    made = tracker()
    made.log(3, 0.5, "train", {"loss": 1.5, "lr": 0.1})
    made.log(6, 1.0, "val", {"accuracy": 0.5})
    assert lines(made) == [
        {"step": 3, "epoch": 0.5, "split": "train", "loss": 1.5, "lr": 0.1},
        {"step": 6, "epoch": 1.0, "split": "val", "accuracy": 0.5},
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_null(tracker, value):
    made = tracker()
    made.log(1, 0.1, "val", {"auroc": value, "loss": 1.0})
    assert lines(made) == [{"step": 1, "epoch": 0.1, "split": "val", "auroc": None, "loss": 1.0}]


def test_observers_are_told_what_is_written(tracker):
    made = tracker(watch="pass")
    made.start(0)
    made.log(3, 0.5, "val", {"auroc": math.nan})
    made.finish("finished")
    assert sys.modules["watch_plugin"].seen == [
        ("started", 10),
        ("logged", 3, {"step": 3, "epoch": 0.5, "split": "val", "auroc": None}),
        ("finished", "finished"),
    ]


def test_an_observer_that_fails_is_named_once_and_the_others_go_on(tracker):
    made = tracker(bad="raise KeyError('x')", good="pass")
    made.start(0)
    made.log(1, 0.1, "val", {"loss": 1.0})
    made.log(2, 0.2, "val", {"loss": 1.0})
    made.finish("finished")
    warnings = [line for line in made.output.getvalue().splitlines() if "warning" in line]
    assert warnings == ["warning: observer bad failed in metrics_logged and is left out: KeyError: 'x'"]
    assert [event[0] for event in sys.modules["bad_plugin"].seen] == ["started", "logged"]
    assert [event[0] for event in sys.modules["good_plugin"].seen] == ["started", "logged", "logged", "finished"]
    assert len(lines(made)) == 2


def test_an_observer_cannot_change_what_is_written(tracker):
    made = tracker(meddler="values['loss'] = 0")
    made.log(1, 0.1, "val", {"loss": 1.0})
    made.log(2, 0.2, "val", {"loss": 2.0})
    assert [line["loss"] for line in lines(made)] == [1.0, 2.0]


def test_the_table_of_stages_shows_what_trains_and_how_fast(tracker):
    made = tracker()
    model = make_model()
    model.backbone.stages["c1"].requires_grad_(False)
    optimizer = build_optimizer(model, OPTIMIZERS["adamw"](lr=0.02, weight_decay=0.3))
    made.stages(summarise(model), optimizer.param_groups, 4)
    text = made.output.getvalue()
    assert text.startswith("stages from epoch 5\n")
    rows = {
        cells[0]: cells[1:]
        for line in text.splitlines()
        if len(cells := [c.strip() for c in line.strip("│").split("│")]) == 6
    }
    assert rows["c1"] == ["116", "0", "-", "-", "train"]
    assert rows["c2"] == ["228", "228", "2.00e-02", "3.00e-01", "train"]
    assert rows["head"] == ["14", "14", "2.00e-02", "3.00e-01", "-"]
    assert rows["all"] == ["358", "242", "", "", ""]


def test_an_evaluation_is_one_line(tracker):
    made = tracker()
    made.start(0)
    made.evaluated(3, {"accuracy": 0.91234, "loss": 0.5}, 0.25, best=True)
    assert made.output.getvalue().splitlines()[-1].strip() == (
        "epoch   3/12  train loss 0.2500  |  val accuracy 0.9123  loss 0.5  best"
    )
    made.evaluated(0, {"accuracy": 0.1}, None, best=False)
    assert made.output.getvalue().splitlines()[-1].strip() == "epoch   0/12  as it starts      |  val accuracy 0.1"
    made.finish("finished")


def test_results_have_a_row_a_metric_and_a_column_a_split():
    output = io.StringIO()
    show_results(Console(file=output, width=80), {"val": {"a": 0.5, "b": 1.0}, "test": {"a": 0.25}}, "best")
    rows = {
        line.split("│")[1].strip(): [c.strip() for c in line.split("│")[2:4]]
        for line in output.getvalue().splitlines()
        if line.startswith("│")
    }
    assert rows == {"a": ["0.5", "0.25"], "b": ["1", "nan"]}


@pytest.mark.parametrize("name", ["map/[red]apple", "map/[/b]", "map/:car:", "map/back\\"])
def test_names_of_classes_are_shown_as_they_are(name, capsys):
    show_results(make_console(), {"val": {name: 0.5}}, "best")
    assert f"│ {name} │" in capsys.readouterr().out


def test_a_warning_may_have_brackets(tracker):
    made = tracker()
    made.warn("cannot write [/x]/[red].png")
    assert made.output.getvalue() == "warning: cannot write [/x]/[red].png\n"


def test_what_the_output_cannot_show_is_shown_by_its_number(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    console = make_console()
    console.print("x\udcff.jpg")
    sys.stdout.flush()
    assert raw.getvalue() == b"x\\udcff.jpg\n"
