"""Components with which a whole run is not what it should be, and what the kit says of each."""

import re
import signal
import sys

import pytest

SMALL = {"backbone": {"name": "acme/tiny", "weights": "none"}, "image": {"size": 16}, "data": {"limit": 16}}
LOSS = """
import itertools
import random
import torch
from torch.nn import functional as F
from ftengine.protocols import Loss

CALLS = itertools.count()

class Thing(Loss):
    def __init__(self):
        super().__init__()
        self.calls = 0
    def forward(self, output, batch):
        self.calls += 1
        value = F.cross_entropy(output["logits"], batch.targets["label"])
        return {{"thing": {value}}}

def thing(options, context):
    return Thing()
"""
SPEC = 'task="classification"'

pytestmark = pytest.mark.usefixtures("third_party")


@pytest.fixture
def found(result):
    """What a check says of a loss that gives `value`."""

    def run(check, value):
        return result(check, "loss", LOSS.format(value=value), SPEC, changes=SMALL)

    return run


def test_a_right_component_passes_every_check(component):
    from ftengine.testing.kit import checks_for, run_check

    subject = component("loss", LOSS.format(value="value"), SPEC, changes=SMALL)
    results = [run_check(one, subject) for one in checks_for("loss") if one.name.startswith("run_")]
    assert [one.check.name for one in results] == ["run_is_finite", "run_repeats", "run_resumes"]
    assert [one.text for one in results if one.status != "ok"] == []


@pytest.mark.parametrize(("own", "count"), [({}, 64), ({"val": "there"}, 2000)], ids=["held out", "given"])
def test_of_a_large_dataset_a_run_evaluates_few_samples(own, count, component):
    from ftengine.build import make_streams, make_tasks
    from ftengine.testing.runs import SmallRun

    code = """
    import numpy as np
    from ftengine.protocols import Dataset

    class Many(Dataset):
        names = {"label": ("dark", "light")}
        def __len__(self): return 2000
        def target(self, index): return {"label": index % 2}
        def sample_id(self, index): return f"constant-{index}"
        def image(self, index): return np.full((8, 8, 3), 200 * (index % 2), np.uint8)

    def thing(options, context): return Many()
    """
    changes = {**SMALL, "data": own}
    plan = SmallRun.of(component("dataset", code, 'fields=("label",)', changes=changes)).plan
    (stream,) = make_streams(plan, make_tasks(plan)).values()
    assert len(stream.val) == count


def test_runs_are_the_last_checks_of_every_kind():
    from ftengine.host import KINDS
    from ftengine.testing.kit import checks_for

    for kind in KINDS:
        names = [one.name for one in checks_for(kind) if not one.name.startswith("workers")]
        assert names[-3:] == ["run_is_finite", "run_repeats", "run_resumes"]
        assert names[0] == "light_import"


def test_a_run_that_breaks_is_told(found):
    answer = found("run_is_finite", "value if self.calls < 3 else value / 0")
    assert answer.status == "failed"
    assert answer.expected == "a small run that goes through"
    assert "not finite" in answer.found


def test_the_steep_loss_of_random_weights_does_not_run_away(found):
    answer = found("run_is_finite", "1e6 * output['logits'].square().mean()")
    assert answer.status == "ok", answer.text


def test_a_measure_that_is_never_finite_is_told(result):
    code = """
    from ftengine.protocols import Metric

    class Thing(Metric):
        def update(self, predictions, targets):
            pass
        def compute(self):
            return {"score": float("nan")}
        def reset(self):
            pass
        def merge(self, other):
            pass

    def thing(options, context):
        return Thing()
    """
    answer = result("run_is_finite", "metric", code, 'task="classification", primary="score"', changes=SMALL)
    assert answer.status == "failed"
    assert answer.expected == "a finite score, val at step 0"
    assert answer.found == "NaN or infinity"


def test_a_run_without_what_is_wanted_of_it_is_told(result):
    code = """
    from ftengine.protocols import Metric

    class Thing(Metric):
        def update(self, predictions, targets):
            self.seen = True
        def compute(self):
            return {"other": 1.0}
        def reset(self):
            pass
        def merge(self, other):
            pass

    def thing(options, context):
        return Thing()
    """
    changes = {**SMALL, "train": {"monitor": "loss"}}
    answer = result("run_is_finite", "metric", code, 'task="classification", primary="score"', changes=changes)
    assert answer.status == "failed"
    assert "score" in answer.expected + answer.found


@pytest.mark.parametrize(
    "value", ["value * random.random()", pytest.param("value * (1 + next(CALLS) / 100)", marks=pytest.mark.slow)]
)
def test_what_differs_from_run_to_run_is_told(found, value):
    answer = found("run_repeats", value)
    assert answer.status == "failed"
    assert answer.expected == "that two runs of one config are the same, bit for bit"
    assert "model.safetensors: backbone.stages.c1.0.weight: " in answer.found
    assert "it has randomness that is not the run's (random, numpy, the time), or keeps a state" in answer.found


@pytest.mark.parametrize("check", ["run_repeats", "run_resumes"])
def test_torch_s_own_randomness_is_the_run_s(found, check):
    assert found(check, "value * torch.rand(())").status == "ok"


def test_a_state_that_is_not_saved_is_told(found):
    answer = found("run_resumes", "value * (1 + self.calls / 100)")
    assert answer.status == "failed"
    assert answer.expected == (
        "that a run which is stopped after step 4 and resumed is the same, bit for bit, as one that is not"
    )
    assert re.match(r"\d+ differences: model.safetensors: backbone.stages.c1.0.weight: \d+ of 216 ", answer.found)
    assert answer.found.endswith("are the same, so that it keeps a state which no checkpoint holds")


def test_randomness_is_told_from_a_lost_state(found):
    answer = found("run_resumes", "value * random.random()")
    assert answer.status == "failed"
    assert answer.found.endswith("two runs without a stop differ too: see run_repeats")


def test_a_run_that_cannot_be_resumed_is_told_by_that_check_alone(component):
    from ftengine.testing.kit import find_check, run_check

    code = """
    from ftengine.protocols import FreezePolicy

    class Thing(FreezePolicy):
        def frozen(self, stages, progress):
            return {"c1"}
        def load_state(self, state):
            raise RuntimeError("there is nothing to load")

    def thing(options, context):
        return Thing()
    """
    subject = component("freeze", code, changes=SMALL)
    for _ in range(2):
        assert run_check(find_check("run_repeats"), subject).status == "ok"
        answer = run_check(find_check("run_resumes"), subject)
        assert (answer.status, answer.expected) == ("failed", "no error")
        assert "there is nothing to load" in answer.found


DATA = """
import os
import numpy as np
from ftengine.protocols import Dataset

HOME = os.getpid()

class Thing(Dataset):
    names = {"label": ("dark", "light")}
    def __len__(self):
        return 16
    def target(self, index):
        return {"label": index % 2}
    def sample_id(self, index):
        return f"thing-{index}"
    def image(self, index):
        return np.full((16, 16, 3), 100 * (index % 2) + index + PLUS, np.uint8)

def thing(options, context):
    return Thing()
"""


@pytest.mark.parametrize(
    ("plus", "status"), [pytest.param("0", "ok", marks=pytest.mark.slow), ("(os.getpid() != HOME)", "failed")]
)
def test_what_a_worker_reads_must_be_the_same(result, plus, status):
    more = 'fields=("label",), options=DatasetOptions'
    changes = {"backbone": SMALL["backbone"], "image": SMALL["image"]}
    answer = result("workers_agree", "dataset", DATA.replace("PLUS", plus), more, changes=changes)
    assert answer.status == status, answer
    if status == "failed":
        assert answer.expected == "the same run with train.workers: 1 as with 0, bit for bit"
        assert "differences: model.safetensors" in answer.found


@pytest.fixture
def terminal():
    """SIGINT raises, as in a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("terminal")
def test_ctrl_c_ends_the_kit_and_is_no_fault_of_the_component(component):
    from ftengine.testing.kit import find_check, run_check

    code = LOSS.format(value="value if self.calls < 3 else (os.kill(os.getpid(), signal.SIGINT), value)[1]")
    subject = component("loss", "import os, signal\n" + code, SPEC, changes=SMALL)
    with pytest.raises(KeyboardInterrupt):
        run_check(find_check("run_is_finite"), subject)


OBSERVER = """
seen = []

@hookimpl
def run_started(run):
    seen.append("started")

@hookimpl
def metrics_logged(step, values):
    seen.append(step)

@hookimpl
def checkpoint_saved(path):
    seen.append("saved")

@hookimpl
def run_finished(outcome):
    seen.append(outcome)
"""


def test_only_the_plugin_that_is_checked_observes_its_runs(component, install_plugin):
    from ftengine.testing.kit import find_check, run_check

    install_plugin("tracker", f"from ftengine.plugin import *\nFTENGINE_API = (1, 0)\n{OBSERVER}")
    subject = component("loss", LOSS.format(value="value"), SPEC, options=OBSERVER, changes=SMALL)
    for check in ("run_is_finite", "run_resumes"):
        assert run_check(find_check(check), subject).status == "ok"
    assert sys.modules["tracker_plugin"].seen == []
    own = sys.modules["wrong_plugin"].seen
    assert own.count("started") == 3
    assert {"saved", "finished", "interrupted", 1} <= set(own)


def test_a_long_run_is_cut_short(component):
    from ftengine.testing.runs import STEPS, SmallRun

    changes = {**SMALL, "data": {"limit": 400}, "train": {"epochs": 9}}
    run = SmallRun.of(component("loss", LOSS.format(value="value"), SPEC, changes=changes))
    assert run.plan.config.train.epochs == 2
    assert (run.at, run.stop) == (STEPS // 2, STEPS)


def test_a_run_of_one_step_cannot_be_stopped(result):
    changes = {**SMALL, "train": {"epochs": 1, "batch_size": 12}}
    answer = result("run_resumes", "loss", LOSS.format(value="value"), SPEC, changes=changes)
    assert answer.status == "failed"
    assert "the small run has 1 step, and cannot be stopped on its way" in answer.found


def test_nothing_of_a_run_is_left_but_the_latest(component, monkeypatch, tmp_path):
    from ftengine.testing.kit import find_check, run_check
    from ftengine.testing.runs import _Latest

    monkeypatch.setattr(_Latest, "run", None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    subject = component("loss", LOSS.format(value="value"), SPEC, changes=SMALL)
    for _ in range(2):
        assert run_check(find_check("run_is_finite"), subject).status == "ok"
        subject = type(subject)(subject.component, subject.host, subject.changes)
    assert len(list(tmp_path.glob("ftengine-check-*"))) == 1
    _Latest.run.folder.cleanup()
