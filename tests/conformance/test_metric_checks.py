"""Metrics that are wrong in one way, and what the kit says of each."""

import pytest

SMALL = {"backbone": {"name": "acme/tiny", "weights": "none"}, "image": {"size": 16}, "data": {"limit": 24}}
SPEC = 'task="classification", primary="accuracy"'
RIGHT = """
import math
import torch
from ftengine.protocols import Metric

class Right(Metric):
    def __init__(self):
        self.reset()
    def reset(self):
        self.right, self.all = 0, 0
    def update(self, predictions, targets):
        for prediction, label in zip(predictions, targets["label"]):
            self.right += int(prediction["scores"].argmax() == label)
            self.all += 1
    def compute(self):
        return {"accuracy": self.right / self.all if self.all else math.nan}
    def merge(self, other):
        self.right += other.right
        self.all += other.all
    def details(self):
        return {"right": [self.right, self.all]}

class Thing(Right):
"""
END = """

def thing(options, context):
    return Thing()
"""

pytestmark = pytest.mark.usefixtures("third_party")


@pytest.fixture
def found(result):
    """What a check says of a metric that is right but for `wrong`, the body of a subclass."""

    def run(check, wrong, more=SPEC):
        body = "\n".join(f"    {line}" for line in wrong.splitlines())
        return result(check, "metric", RIGHT + body + END, more, changes=SMALL)

    return run


def test_a_right_metric_passes_every_check(component):
    from ftengine.testing.kit import checks_for, run_check

    subject = component("metric", RIGHT + "    pass" + END, SPEC, changes=SMALL)
    results = [run_check(one, subject) for one in checks_for("metric") if one.name.startswith("metric_")]
    assert len(results) == 9
    assert "\n".join(one.text for one in results if one.status != "ok") == ""


WRONG = {
    "no dict": (
        "metric_values",
        "def compute(self): return self.right / self.all",
        "that compute() gives a dict of floats",
        "float",
    ),
    "a tensor": (
        "metric_values",
        "def compute(self): return {'accuracy': torch.tensor(self.right / self.all)}",
        "a float for each name",
        "Tensor for 'accuracy'",
    ),
    "without the primary": (
        "metric_values",
        "def compute(self): return {'acc': self.right / self.all}",
        "the spec's accuracy in what compute() gives",
        "acc, of the model's predictions",
    ),
    "details with numbers as keys": (
        "metric_details",
        "def details(self): return {3: self.right}",
        "details() that are the same when they are read from JSON",
        "the names '3', not 3",
    ),
    "details with a tensor": (
        "metric_details",
        "def details(self): return {'matrix': torch.zeros(2, 2)}",
        "details() that can be written as JSON",
        "Object of type Tensor is not JSON serializable",
    ),
    "the mean of the batches' means": (
        "metric_grouping",
        """\
def update(self, predictions, targets):
    scores = torch.stack([prediction["scores"] for prediction in predictions])
    self.right += (scores.argmax(1) == targets["label"]).float().mean().item()
    self.all += 1
def details(self): return {}""",
        "the same from batches of 1, 5 samples as from one of 6",
        "['compute()']['accuracy'] ",
    ),
    "a merge that forgets how many there were": (
        "metric_merge",
        "def merge(self, other): self.right += other.right",
        "of a metric that has seen 1 samples, merges one that has seen 1, and sees 4 more, what 6 samples give in one "
        "batch",
        "['compute()']['accuracy'] ",
    ),
    "a merge that puts the other before": (
        "metric_merge",
        """\
def reset(self): self.seen = []
def update(self, predictions, targets): self.seen += targets["label"].tolist()
def merge(self, other): self.seen = other.seen + self.seen
def compute(self): return {"accuracy": 0.5}
def details(self): return {"seen": self.seen}""",
        "of a metric that has seen 1 samples",
        "['details()']['seen'][0] ",
    ),
    "a reset that leaves a count": (
        "metric_reset",
        "def reset(self): self.right, self.all = 0, getattr(self, 'all', 0)",
        "after reset() what a new metric gives",
        "['compute()']['accuracy'] ",
    ),
    "a compute that counts": (
        "metric_compute_repeats",
        """\
def compute(self):
    self.all += 1
    return {"accuracy": self.right / self.all}""",
        "the same from a second compute() and details()",
        "['details()']['right'][1] 3, not 2",
    ),
    "a compute that ends it": (
        "metric_compute_repeats",
        """\
def update(self, predictions, targets):
    if not hasattr(self, "done"):
        super().update(predictions, targets)
def compute(self):
    self.done = True
    return {"accuracy": self.right / self.all}""",
        "after 5 more samples the same as without a compute() before them",
        "['compute()']['accuracy'] ",
    ),
    "an update that changes predictions": (
        "metric_inputs",
        """\
def update(self, predictions, targets):
    super().update(predictions, targets)
    predictions[2]["scores"].mul_(0)""",
        "the predictions that update() was given as they were",
        "[2]['scores'][0] 0, not ",
    ),
    "an update that changes targets": (
        "metric_inputs",
        """\
def update(self, predictions, targets):
    super().update(predictions, targets)
    targets["label"] += 1""",
        "the targets that update() was given as they were",
        "['label'][0] ",
    ),
    "a function of its own inside": (
        "metric_pickles",
        """\
def __init__(self):
    super().__init__()
    self.key = lambda scores: scores.argmax()""",
        "a metric that can be pickled, as it is on its way from one process of a run to another",
        "pickle",
    ),
    "a copy without what was seen": (
        "metric_pickles",
        "def __getstate__(self): return {'right': 0, 'all': 0}",
        "of a pickled metric what its original gives",
        "['compute()']['accuracy'] ",
    ),
    "one that draws": (
        "metric_compute_repeats",
        """\
def compute(self):
    return {"accuracy": float(torch.rand(()))}""",
        "the same from a second compute() and details()",
        "['compute()']['accuracy'] ",
    ),
}


@pytest.mark.parametrize(("check", "wrong", "expected", "text"), WRONG.values(), ids=WRONG)
def test_a_wrong_metric_is_found_out(found, check, wrong, expected, text):
    result = found(check, wrong)
    assert (result.status, result.check.name) == ("failed", check)
    assert expected in result.expected
    assert text in result.found


def test_the_wrong_mode_is_found_out(found):
    result = found("metric_mode", "pass", SPEC + ', mode="min"')
    assert result.expected == "perfect predictions to be no worse by mode 'min' than those of an untrained model"
    assert result.found.startswith("accuracy 1 for the perfect ones, 0.")


def test_a_task_that_cannot_tell_what_is_perfect_leaves_the_mode_unchecked(found, monkeypatch):
    from ftengine.protocols import Task
    from ftengine_classification.task import Classification

    monkeypatch.setattr(Classification, "perfect", Task.perfect)
    result = found("metric_mode", "pass")
    assert (result.status, result.reason) == ("left out", "the task classification has no method `perfect`")


def test_values_that_the_samples_do_not_define_leave_the_mode_unchecked(found):
    result = found("metric_mode", "def compute(self): return {'accuracy': math.nan}")
    assert (result.status, result.reason) == ("left out", "the small run's samples define none of its values")


def test_two_samples_are_too_few(component):
    from ftengine.testing.kit import find_check, run_check

    changes = {**SMALL, "data": {"limit": 24, "val_fraction": 0.08}}
    subject = component("metric", RIGHT + "    pass" + END, SPEC, changes=changes)
    result = run_check(find_check("metric_merge"), subject)
    assert result.status == "left out"
    assert result.reason == "the small run's validation split has 2 samples; 3 are needed"


def test_what_the_checks_draw_is_not_seen_outside(found):
    import torch

    before = torch.random.get_rng_state()
    found("metric_values", "pass")
    assert torch.equal(before, torch.random.get_rng_state())
