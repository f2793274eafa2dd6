"""The order of runs, what is done again and what is not, and what is refused before anything trains."""

import json
import os
import signal
from pathlib import Path

import click
import pytest
from rich.console import Console
from test_compare_report import comparison, summary

from ftengine.children import StoppedBySignal
from ftengine.compare import execution as compare
from ftengine.compare.budget import Cost
from ftengine.compare.check import check_retained, fewest_epochs
from ftengine.compare.configs import StrategiesError
from ftengine.compare.plan import Comparison, folders, pick
from ftengine.document import read
from ftengine.errors import CheckpointError, FtengineError
from ftengine.host import Host
from ftengine.resolve import resolve
from ftengine.signals import Signals
from ftengine.trial import read_tasks, try_to_build

# --- which strategies, and where --------------------------------------------------------------------------------


def test_strategies_by_name_and_all_of_them():
    host = Host.discover()
    assert [component.name for component in pick(" full, probe", host)] == ["full", "probe"]
    assert {component.name for component in pick("all", host)} == set(host.names("strategy"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected names with commas between them"),
        ("full,", "expected names with commas between them"),
        ("full,probe,full", "names full twice"),
        ("full,prob,fulll", "did you mean 'probe'.*did you mean 'full'"),
    ],
)
def test_strategies_that_cannot_be_meant(text, message):
    with pytest.raises(click.UsageError, match=message):
        pick(text, Host.discover())


def test_folders_are_safe_and_different():
    assert folders(["full", "acme/x", "acme-x", "retain", "../a b"]) == {
        "full": "full",
        "acme/x": "acme-x",
        "acme-x": "acme-x-2",
        "retain": "retain-2",
        "../a b": "..-a-b",
    }


def test_runs_go_seed_by_seed(tmp_path):
    runs = comparison("probe", "acme/x", seeds=[3, 4]).runs(tmp_path)
    assert [(run.strategy, run.seed) for run in runs] == [("probe", 3), ("acme/x", 3), ("probe", 4), ("acme/x", 4)]
    assert runs[1].directory == tmp_path / "acme-x" / "seed-3"
    assert runs[1].log == tmp_path / "acme-x" / "seed-3.log"
    assert runs[1].config == tmp_path / "acme-x" / "config.yaml"


def test_settings_are_kept(tmp_path):
    given = comparison("probe", retain={"task": "x"}, budget=5.0, notes=["a"])
    given.save(tmp_path)
    assert Comparison.load(tmp_path) == given


def test_a_folder_that_is_no_comparison(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no compare\.json"):
        Comparison.load(tmp_path)
    (tmp_path / "compare.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Comparison.load(tmp_path)


# --- runs, in processes that are only pretended -------------------------------------------------------------------


class Processes:
    """Stands for the processes: notes what is started, and writes what a run would."""

    def __init__(self):
        self.started = []
        self.outcome = {}  # what the run in a folder does: a value (default 0.5), "fail", "die", "stop"
        self.checkpoint = set()

    def __call__(self, arguments, log, folder, signals, look=lambda: None):
        option = "--resume" if "--resume" in arguments else "--output"
        directory = Path(arguments[arguments.index(option) + 1])
        name = f"{directory.parent.name}/{directory.name}"
        self.started.append((name, option))
        directory.mkdir(parents=True, exist_ok=option == "--resume")  # a run refuses a folder that is there
        look()
        outcome = self.outcome.get(name, 0.5)
        if outcome == "fail":
            log.write_text("Error: the loss is nan\n")
            return 1
        if outcome == "stop":
            (directory / "half.txt").write_text("")
            os.kill(os.getpid(), signal.SIGTERM)
            raise StoppedBySignal(143)
        (directory / "summary.json").write_text(json.dumps(summary(outcome)))
        return 0


@pytest.fixture
def processes(monkeypatch):
    made = Processes()
    monkeypatch.setattr(compare, "run_process", made)
    return made


@pytest.fixture
def go(tmp_path):
    """Runs a comparison; returns its data and what it printed."""

    def execute(given, expected=None):
        console = Console(file=(tmp_path / "printed").open("w"), width=160)
        with Signals() as signals:
            if expected is None:
                compare.execute(given, tmp_path, console, signals)
            else:
                with pytest.raises(StoppedBySignal) as stop:
                    compare.execute(given, tmp_path, console, signals)
                assert stop.value.code == expected
        console.file.close()
        return json.loads((tmp_path / "comparison.json").read_text()), (tmp_path / "printed").read_text()

    return execute


def test_every_run_is_done_once_and_reported(processes, go, tmp_path):
    processes.outcome["full/seed-0"] = 0.75
    data, printed = go(comparison("probe", "full", seeds=[0, 1]))
    names = ["probe/seed-0", "full/seed-0", "probe/seed-1", "full/seed-1"]
    assert processes.started == [(name, "--output") for name in names]
    assert "run 2 of 4: full, seed 0\n  accuracy 0.75 on val in 10 s" in printed
    assert data["complete"]
    assert (tmp_path / "comparison.png").is_file()


def test_a_failed_run_does_not_end_the_comparison_and_is_tried_again_when_it_continues(processes, go):
    processes.outcome["probe/seed-0"] = "fail"
    given = comparison("probe", "full", seeds=[0, 1])
    data, printed = go(given)
    assert len(processes.started) == 4
    assert [run["state"] for run in data["runs"]] == ["failed", "finished", "finished", "finished"]
    assert data["runs"][0]["error"] == "Error: the loss is nan"
    assert "failed: Error: the loss is nan" in printed
    assert data["recommendation"]["strategy"] == "full"
    processes.started.clear()
    processes.outcome.clear()
    data, _ = go(given)
    assert processes.started == [("probe/seed-0", "--output")]
    assert {run["state"] for run in data["runs"]} == {"finished"}


def test_a_stop_ends_it_with_a_report_and_what_was_begun_begins_anew(processes, go, tmp_path):
    processes.outcome["full/seed-0"] = "stop"
    given = comparison("probe", "full", seeds=[0, 1])
    data, printed = go(given, expected=143)
    assert processes.started == [("probe/seed-0", "--output"), ("full/seed-0", "--output")]
    assert not data["complete"]
    assert data["recommendation"] is None
    assert "Stopped after 1 of 4 runs" in printed
    assert (tmp_path / "full" / "seed-0" / "half.txt").is_file()
    processes.started.clear()
    processes.outcome.clear()
    data, _ = go(given)
    assert processes.started == [("full/seed-0", "--output"), ("probe/seed-1", "--output"), ("full/seed-1", "--output")]
    assert data["complete"]
    assert not (tmp_path / "full" / "seed-0" / "half.txt").exists()


def test_a_run_with_a_checkpoint_is_continued(processes, go, tmp_path):
    checkpoints = tmp_path / "probe" / "seed-1" / "checkpoints"
    (checkpoints / "step-00000003").mkdir(parents=True)
    (checkpoints / "last.json").write_text('{"checkpoint": "step-00000003"}')
    go(comparison("probe", seeds=[0, 1]))
    assert processes.started == [("probe/seed-0", "--output"), ("probe/seed-1", "--resume")]


def test_two_cannot_go_on_in_one_directory(processes, go, tmp_path):
    given = comparison("probe", seeds=[0])
    with compare.claim(tmp_path), pytest.raises(CheckpointError, match="another process"):
        go(given)
    assert processes.started == []


# --- checks -------------------------------------------------------------------------------------------------------

LONG = """
from pydantic import Field
from ftengine.plugin import FreezeSpec, Options, StrategySpec, hookimpl

FTENGINE_API = (1, 0)

class Phases(Options):
    epochs: int = Field(1, description="Frozen ones.")

@hookimpl
def register_freeze_policies():
    yield FreezeSpec(name="phases", factory="lab_policy:make", summary="Frozen first.", options=Phases)

@hookimpl
def register_strategies():
    for count in (2, 5):
        settings = {"freeze": {"name": "lab/phases", "epochs": count}}
        yield StrategySpec(name=f"after{count}", summary="Frozen first.", settings=settings)
"""
POLICY = """
from ftengine.errors import FtengineError
from ftengine.protocols import FreezePolicy

class Phases(FreezePolicy):
    def __init__(self, epochs):
        self.epochs = epochs
    def frozen(self, stages, progress):
        return set(stages) if progress.epoch < self.epochs else set()

def make(options, context):
    if options.epochs >= context.epochs:
        raise FtengineError(f"frozen for {options.epochs} epochs in a run of {context.epochs}")
    return Phases(options.epochs)
"""
SMALL = """
task: classification
data: {format: digits, limit: 40}
image: {size: 32}
backbone: {name: resnet18, weights: none}
train: {epochs: 4, batch_size: 8}
"""


@pytest.fixture
def prepared(tmp_path, install_plugin):
    """A comparison of strategies that has resolved, and is to be checked."""
    install_plugin("lab", LONG)
    (tmp_path / "site-lab" / "lab_policy.py").write_text(POLICY)
    file = tmp_path / "base.yaml"
    file.write_text(SMALL)

    def make(*names, seeds=(0, 1)):
        host = Host.discover()
        documents, _ = compare.configs.documents(read(file), [host.find("strategy", name) for name in names])
        plans = dict(compare.configs.plans(documents))
        given = comparison(*names, seeds=seeds, epochs=dict.fromkeys(names, 4))
        return compare.Prepared(given, documents, plans)

    return make


def test_a_policy_longer_than_the_run_is_refused_before_anything_trains(prepared):
    with pytest.raises(StrategiesError) as error:
        prepared("full", "lab/after5", "lab/after2").check()
    assert "1 of 3 strategies cannot be run" in str(error.value)
    assert "lab/after5: frozen for 5 epochs in a run of 4" in str(error.value)


def test_a_budget_gives_each_strategy_the_epochs_that_fit(prepared, monkeypatch):
    ready = prepared("full", "lab/after2")
    ready.check()
    costs = {"full": Cost(1.0, 0.1, 0.5, 0.5, 4), "lab/after2": Cost(1.0, 0.2, 0.5, 0.5, 4)}
    monkeypatch.setattr(ready, "_measure", lambda name, *_: costs[name])
    # Each of the 4 runs has 10 s: 8.5 for epochs of 1.4 s, and of 1.8 s.
    ready.fit(40.0, Console(quiet=True), Signals())
    assert ready.comparison.epochs == {"full": 6, "lab/after2": 4}
    assert ready.comparison.budget == 40.0
    assert resolve(ready.documents["full"]).config.train.epochs == 6


def test_a_budget_that_is_too_short_is_refused_with_one_that_would_do(prepared, monkeypatch):
    ready = prepared("full", "lab/after2")
    ready.check()
    monkeypatch.setattr(ready, "_measure", lambda *_: Cost(2.0, 1.0, 0.5, 0.5, 4))
    # An epoch takes 5 s, all else 2.5 s: one fits into 10 s, and three, which after2 needs, take 17.5 s.
    with pytest.raises(StrategiesError) as error:
        ready.fit(40.0, Console(quiet=True), Signals())
    lines = str(error.value).splitlines()
    assert lines[0] == "--budget leaves 10 s for each of the 4 runs, which is too short for"
    assert lines[1] == "  lab/after2: frozen for 2 epochs in a run of 1; 3 would take 18 s"
    assert lines[2] == "use --budget 80s or more, fewer strategies, or fewer --seeds"  # 4 · 17.5 s and a tenth more
    with pytest.raises(StrategiesError, match=r"full: not even one epoch fits; 1 would take 7\.5 s"):
        ready.fit(20.0, Console(quiet=True), Signals())


def test_the_fewest_epochs_that_are_possible():
    for least in range(2, 20):
        assert fewest_epochs(lambda epochs, least=least: epochs >= least, 1, 20) == least
    assert fewest_epochs(lambda epochs: False, 1, 20) is None
    assert fewest_epochs(lambda epochs: True, 5, 5) is None


# --- the --retain task --------------------------------------------------------------------------------------------


@pytest.fixture
def weights(plan):
    own = plan(SMALL)
    return dict(try_to_build(own, read_tasks(own)).model.backbone.stages.state_dict())


def test_a_retain_task_that_needs_more_of_the_backbone_is_refused(plan, weights):
    retain = plan(SMALL)
    check_retained(retain, weights)
    cut = {name: tensor for name, tensor in weights.items() if not name.startswith("c5.")}
    with pytest.raises(FtengineError, match=r"needs more of the backbone than the compared one has, from c5\."):
        check_retained(retain, cut)
    wide = {name: tensor.repeat_interleave(2, 0) if tensor.ndim else tensor for name, tensor in weights.items()}
    with pytest.raises(FtengineError, match=r"give both the same image\.size"):
        check_retained(retain, wide)
