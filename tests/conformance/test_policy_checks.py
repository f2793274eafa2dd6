"""Freeze policies that are wrong in one way, and what the kit says of each."""

import pytest

SMALL = {"backbone": {"name": "acme/tiny", "weights": "none"}, "image": {"size": 16}, "data": {"limit": 16}}
RIGHT = """
import random
from ftengine.protocols import FreezePolicy

class Right(FreezePolicy):
    asked = 0
    def frozen(self, stages, progress):
        return {"c1"} if progress.epoch == 0 else {"c1", "c2.0.bias"}

class Measuring(FreezePolicy):
    chosen = None
    def frozen(self, stages, progress):
        return set(stages) - {self.chosen if progress.epoch > 0 else None}
    def batches_to_measure(self, progress):
        return 1 if self.chosen is None and progress.epoch > 0 else 0
    def measured(self, relative_gradients):
        self.chosen = max(relative_gradients, key=relative_gradients.get)
        return f"trains {self.chosen}"
    def state(self):
        return {"chosen": self.chosen}
    def load_state(self, state):
        self.chosen = state["chosen"]

"""
END = """

def thing(options, context):
    return Thing()
"""

pytestmark = pytest.mark.usefixtures("third_party")


def source(body, base="Right"):
    return RIGHT + f"class Thing({base}):\n" + "\n".join(f"    {line}" for line in body.splitlines()) + END


@pytest.fixture
def found(result):
    """What a check says of a policy that is right but for `body`, of a subclass of `base`."""

    def run(check, body, base="Right", changes=None):
        return result(check, "freeze", source(body, base), changes={**SMALL, **(changes or {})})

    return run


@pytest.mark.parametrize("base", ["Right", "Measuring"])
def test_a_right_policy_passes_every_check(component, base):
    from ftengine.testing.kit import checks_for, run_check

    subject = component("freeze", source("pass", base), changes=SMALL)
    results = [run_check(one, subject) for one in checks_for("freeze") if one.name.startswith("policy_")]
    assert len(results) == 5
    assert [one.text for one in results if one.status == "failed"] == []
    assert [one.check.name for one in results if one.status == "left out"] == (
        ["policy_measures_once"] if base == "Right" else []
    )


COUNTING = """
def frozen(self, stages, progress):
    self.asked += 1
    return {"c1"} if self.asked % 2 else set()
"""
WRONG = {
    "counts": (
        "Right",
        "policy_is_pure",
        COUNTING,
        "epoch 1 of 2 freezes c1 whenever it is asked",
        "none, asked about the last epoch first",
    ),
    "remembers": (
        "Right",
        "policy_is_pure",
        "last = 0\ndef frozen(self, stages, progress):\n    self.last = max(self.last, progress.epoch)\n"
        '    return {"c1"} if self.last == 0 else set()',
        "epoch 1 of 2 freezes c1 whenever it is asked",
        "none, asked a second time",
    ),
    "draws": (
        "Right",
        "policy_is_pure",
        "def __init__(self):\n    self.one = random.choice(['c1', 'c2', 'c3'] * 9 + ['head'])\n"
        "def frozen(self, stages, progress):\n    return {self.one}",
        "freezes",
        "made anew with other global seeds",
    ),
    "counts what it has measured": (
        "Measuring",
        "policy_is_pure",
        "def frozen(self, stages, progress):\n    self.asked = getattr(self, 'asked', 0) + 1\n"
        "    return set() if self.chosen is None or self.asked % 2 else {'c1'}",
        "freezes",
        ", measured before epoch 2",
    ),
    "changes what it is given": (
        "Right",
        "policy_is_pure",
        "def frozen(self, stages, progress):\n    stages.popitem()\n    return set()",
        "that `frozen` leaves the stages that it is given alone",
        "that it changes them",
    ),
    "a state that is no JSON": (
        "Right",
        "policy_is_pure",
        "def state(self):\n    return {'seen': {1, 2}}",
        "a state that is JSON data",
        "Object of type set is not JSON serializable",
    ),
    "a state that JSON changes": (
        "Right",
        "policy_is_pure",
        "def state(self):\n    return {'seen': (1, 2)}",
        "a state that is the same after JSON",
        "{'seen': [1, 2]} for {'seen': (1, 2)}",
    ),
    "a list": (
        "Right",
        "policy_names_exist",
        "def frozen(self, stages, progress):\n    return 'c1'",
        "a set of names",
        "a str: 'c1'",
    ),
    "a name that is none": (
        "Right",
        "policy_names_exist",
        "def frozen(self, stages, progress):\n    return {'c1', 'c2.0.wieght'}",
        "names of the context in epoch 1 of 2",
        "unknown stage, head or parameter 'c2.0.wieght'; did you mean 'c2.0.weight'?",
    ),
    "a name that is none once it has measured": (
        "Measuring",
        "policy_names_exist",
        "def measured(self, relative_gradients):\n    self.chosen = 'stem'\n    return ''\n"
        "def frozen(self, stages, progress):\n    return {self.chosen or 'c1'}",
        "names of the context in epoch 1 of 2",
        "unknown stage, head or parameter 'stem'",
    ),
    "freezes everything later": (
        "Right",
        "policy_leaves_something",
        "def frozen(self, stages, progress):\n    return {*stages, 'head'} if progress.epoch else set()",
        "that some parameter trains in every epoch",
        "that none does in epoch 2 of 2: it freezes c1, c2, c3, head",
    ),
    "measures again": (
        "Measuring",
        "policy_measures_once",
        "def batches_to_measure(self, progress):\n    return 3 if progress.epoch > 0 else 0",
        "0 batches to measure before epoch 2, once they are measured",
        "3",
    ),
    "rewrites the past": (
        "Measuring",
        "policy_measures_once",
        "def frozen(self, stages, progress):\n    return set(stages) - {self.chosen}",
        "that epoch 1 of 1 freezes c1, c2, c3",
        "c2, c3, after it has measured before epoch 2",
    ),
    "forgets what it has measured": (
        "Measuring",
        "policy_measures_once",
        "def state(self):\n    return {}\ndef load_state(self, state):\n    pass",
        "that epoch 2 of 2 freezes c2, c3",
        "c1, c2, c3, by one that was given its state",
    ),
    "measures again after a resume": (
        "Measuring",
        "policy_measures_once",
        "pending = True\n"
        "def measured(self, relative_gradients):\n    self.pending = False\n"
        "    return super().measured(relative_gradients)\n"
        "def batches_to_measure(self, progress):\n    return int(self.pending and progress.epoch > 0)",
        "that one which is given its state has nothing to measure",
        "that it measures again",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_policy_that_is_wrong_in_one_way_is_told_so(found, name):
    base, check, body, expected, said = WRONG[name]
    answer = found(check, body, base)
    assert answer.status == "failed"
    assert expected in answer.expected
    assert said in answer.found


HONOURS = """
def frozen(self, stages, progress):
    self.asked += 1
    return {names}
"""


def test_what_a_policy_freezes_must_stay_as_it_is(found):
    # The loop asks before training; what it says at first is asked of another of its making.
    answer = found("policy_is_honoured", HONOURS.format(names='{"c1", "c2"} if self.asked == 1 else {"c1"}'))
    assert answer.status == "failed"
    assert answer.expected == "that c2.0.weight, which it freezes in epoch 1, stays as it is"
    assert "elements, by up to" in answer.found


def test_statistics_of_a_frozen_stage_must_stay_as_they_are(found):
    # In steps too small to change a weight of 1 the layer's statistics follow the batches all the same.
    frozen = '{"c2.1.weight", "c2.1.bias"} if self.asked == 1 else {"c2.1.bias"}'
    answer = found("policy_is_honoured", HONOURS.format(names=frozen), changes={"optimizer": {"lr": 1e-30}})
    assert answer.status == "failed"
    assert answer.expected == "that c2.1.num_batches_tracked, which it freezes in epoch 1, stays as it is"


def test_what_a_policy_lets_train_must_train(found):
    answer = found("policy_is_honoured", HONOURS.format(names='set() if self.asked == 1 else {"c1"}'))
    assert answer.status == "failed"
    assert answer.expected == "that what it does not freeze in epoch 1 trains"
    assert answer.found == "that c1.0.bias, c1.0.weight, c1.1.bias, … (+1) does not"


def test_what_has_a_gradient_must_move(found, monkeypatch):
    # No policy can do this: an optimizer that stands still.
    monkeypatch.setattr("torch.optim.SGD.step", lambda self, closure=None: None)
    answer = found("policy_is_honoured", "pass")
    assert answer.status == "failed"
    assert answer.expected == "that what it does not freeze in epoch 1 moves"
    assert "parameters with a gradient has moved" in answer.found


def test_statistics_may_move_where_the_config_says_so(found):
    frozen_norm = {"freeze": {"frozen_norm": "train"}}
    assert found("policy_is_honoured", "pass", changes=frozen_norm).status == "ok"
