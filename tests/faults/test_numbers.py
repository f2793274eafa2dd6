"""Losses and gradients that are not finite, at any step and for every task: no weight moves, and the run says so."""

import hashlib
import math

import pytest
import torch

from ftengine import step as steps
from ftengine.identical import compare_runs
from ftengine.model import Model

NAN, INF = math.nan, math.inf
SCENES = {
    "data": {
        "limit": None,
        "val_fraction": 0.2,
        "scenes": {"count": 15, "size": 32, "digits": [1, 2], "digit_size": [12, 16]},
    }
}
SMALL = {"train": {"epochs": 2, "batch_size": 4, "pictures": 0, "eval_every": 2}, "checkpoint": {"every_epochs": 2}}
STAGED = {"backbone": {"name": "timm", "model": "test_resnet", "weights": "none"}, "image": {"size": 32}}
"""A ResNet of half a million parameters."""
TASKS = {
    "classification": {},
    "regression": {"task": "regression"},
    "detection": {"task": "detection", "head": {"name": "fcos", "preset": "small"}, **STAGED, **SCENES, **SMALL},
    "segmentation": {"task": "segmentation", "head": "fcn", **STAGED, **SCENES, **SMALL},
}
"""Runs of six steps in two epochs."""


class Breaker:
    """Multiplies the loss of chosen steps, from 1, in the process's runs; knows what the weights were at each."""

    def __init__(self, monkeypatch):
        self.factors, self.images, self.weights, self.now = {}, {}, {}, 0
        terms, gradients, normalise = steps.weighted_terms, steps.compute_gradients, Model.normalise
        self.look = True

        def break_terms(plan, model, results):
            factor = self.factors.get(self.now, 1.0)
            total, named = terms(plan, model, results)
            return total * factor, {name: term * factor for name, term in named.items()}

        def note_step(run, batches):
            self.now = run.step + 1
            if self.look:
                self.weights[self.now] = digest(run.model)
            try:
                return gradients(run, batches)
            finally:
                self.now = 0

        def break_images(model, batch):
            return normalise(model, batch) * self.images.get(self.now, 1.0)

        monkeypatch.setattr(steps, "weighted_terms", break_terms)
        monkeypatch.setattr(steps, "compute_gradients", note_step)
        monkeypatch.setattr(Model, "normalise", break_images)


def digest(model):
    made = hashlib.sha256()
    for tensor in model.state_dict().values():
        made.update(tensor.contiguous().numpy().tobytes())
    return made.hexdigest()


@pytest.fixture
def breaker(monkeypatch):
    return Breaker(monkeypatch)


def policy(name, limit=10, **train):
    return {"train": {"on_non_finite": {"policy": name, "limit": limit}, **train}}


def laid(*changes):
    """Changes of a config, one over the other."""
    from run_configs import merged

    result = {}
    for change in changes:
        result = merged(result, change)
    return result


@pytest.mark.parametrize("task", TASKS)
def test_of_every_task_a_broken_step_is_left_out_and_a_huge_loss_is_not(runs, breaker, task):
    breaker.factors = {2: NAN, 3: INF, 5: 1000.0}
    run = runs(laid(TASKS[task], policy("skip")))
    weights = breaker.weights
    assert weights[2] == weights[3] == weights[4], "nothing has moved, BatchNorm's statistics neither"
    assert weights[1] != weights[2]
    assert weights[4] != weights[5] != weights[6]
    faults, lines = run.lines("fault"), run.lines("train")
    assert [(line["step"], line["what"]) for line in faults] == [(2, "loss"), (3, "loss")]
    for line in faults:
        assert len(set(line["samples"])) == run.resolved["train"]["batch_size"]
        assert None in line["values"].values(), "NaN and infinities have no other form in JSON"
    for number, what in ((2, "nan"), (3, "inf")):
        assert f"the loss is not finite at step {number} (epoch 1): " in run.result.stdout
        assert what in run.result.stdout
    # A loss a thousand times as large is a number: the run goes on, and it can be seen.
    assert [line["step"] for line in lines] == [1, *range(4, run.lines("train")[-1]["step"] + 1)]
    by_step = {line["step"]: line for line in lines}
    assert by_step[5]["gradient_norm"] > 30 * by_step[4]["gradient_norm"]
    assert by_step[5]["loss"] > 30 * by_step[4]["loss"]
    assert all(math.isfinite(value) for value in run.summary["metrics"]["val"].values() if value is not None)
    assert all(tensor.isfinite().all() for tensor in run.tensors().values())


@pytest.mark.parametrize("value", [NAN, INF])
def test_by_default_the_run_stops_with_the_samples_in_the_run_directory(runs, breaker, value):
    breaker.factors = {5: value}
    run = runs(exit_code=1)
    (line,) = run.lines("fault")
    assert (line["step"], line["epoch"]) == (5, pytest.approx(5 / 3, abs=1e-4))
    assert f"samples: {', '.join(line['samples'])}" in run.result.stderr
    assert run.checkpoint().name == "step-00000003"


def test_a_gradient_that_is_not_finite_though_the_loss_is(runs, monkeypatch):
    gradients = steps.compute_gradients

    def broken(run, batches):
        parts = gradients(run, batches)
        if run.step == 3:
            next(p for p in run.model.parameters() if p.grad is not None).grad[0] = INF
        return parts

    monkeypatch.setattr(steps, "compute_gradients", broken)
    run = runs(exit_code=1)
    assert "the gradient is not finite at step 4 (epoch 2): cross_entropy " in run.result.stderr
    assert "gradient_norm inf" in run.result.stderr
    (line,) = run.lines("fault")
    assert line["what"] == "gradient"
    assert len(line["samples"]) == 16


def test_over_the_limit_the_run_ends(runs, breaker):
    breaker.factors = {1: NAN, 3: NAN, 5: NAN}
    run = runs(policy("skip", limit=2), exit_code=1)
    assert "2 steps were left out before: that is the limit of train.on_non_finite" in run.result.stderr
    assert len(run.lines("fault")) == 3


def test_a_step_is_left_out_of_statistics_that_a_broken_pass_has_spoilt(runs, breaker):
    """All of the images are NaN, and so are BatchNorm's means after the pass; an average copies them."""
    breaker.images = {2: NAN}
    run = runs(laid(policy("skip"), {"train": {"ema": 0.5}}))
    assert breaker.weights[2] == breaker.weights[3]
    for file in ("model", "training"):
        assert all(tensor.isfinite().all() for tensor in run.tensors(file=file).values())


def test_parts_of_a_step_are_one_step_and_only_the_broken_part_is_named(runs, monkeypatch):
    terms, calls = steps.weighted_terms, []

    def break_one(plan, model, results):
        calls.append(None)
        total, named = terms(plan, model, results)
        return (total * NAN, named) if len(calls) == 7 else (total, named)

    monkeypatch.setattr(steps, "weighted_terms", break_one)
    run = runs(policy("skip", accumulate=4))
    (line,) = run.lines("fault")
    assert (line["step"], len(line["samples"])) == (2, 4)


# --- rollback --------------------------------------------------------------------------------------------------------

ROLLBACK = {
    **laid(policy("rollback"), {"train": {"epochs": 3, "ema": 0.8}}),
    "head": {"name": "mlp", "hidden": [8], "dropout": 0.5},
}


@pytest.mark.parametrize(("at", "to"), [(2, 1), (6, 4), pytest.param(4, 4, marks=pytest.mark.slow)])
def test_rollback_goes_back_to_the_last_checkpoint_and_on_with_the_next_step(runs, breaker, at, to):
    """The weights before step `at` + 1 are those before step `to`, which were saved at an epoch's end or the start."""
    breaker.factors = {at: NAN}
    run = runs(ROLLBACK)
    assert breaker.weights[at + 1] == breaker.weights[to]
    assert f"the weights are again those after step {to - 1}" in run.result.stdout
    assert [line["step"] for line in run.lines("train")] == [step for step in range(1, 10) if step != at]
    assert run.summary["best_step"] in (3, 6, 9)


def test_what_was_frozen_after_the_checkpoint_may_go_back_with_it(runs, breaker, monkeypatch):
    """A stage freezes in the second epoch, and is then held to what it is in the checkpoint of the start."""
    breaker.factors = {5: NAN}
    late = lambda self, stages, progress: {"c1"} if progress.epoch >= 1 else set()  # noqa: E731
    monkeypatch.setattr("acme_vision.training.FirstEpochs.frozen", late)
    freeze = {"freeze": {"name": "acme/first_epochs"}, "checkpoint": {"every_epochs": 3}, "train": {"eval_every": 3}}
    run = runs(laid(ROLLBACK, freeze))
    assert "the weights are again those after step 0" in run.result.stdout
    assert breaker.weights[6] == breaker.weights[1]


# --- stopped and resumed -----------------------------------------------------------------------------------------

AROUND = {
    "skip": laid(ROLLBACK, policy("skip")),
    "rollback": ROLLBACK,
    "rollback, often saved": {**ROLLBACK, "checkpoint": {"every_steps": 2}},
    "skip, logged seldom": laid(ROLLBACK, policy("skip", log_every=4)),
    "rollback of sgd, accumulated": laid(
        ROLLBACK, {"optimizer": {"name": "sgd", "lr": 0.1}, "train": {"accumulate": 2, "clip_norm": 1.0}}
    ),
}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(changes, id=name, marks=() if name in ("skip", "rollback, often saved") else pytest.mark.slow)
        for name, changes in AROUND.items()
    ],
)
def test_a_run_stopped_around_broken_steps_ends_with_the_same_bytes(runs, cli, breaker, changes):
    """Before them, after them, and between; steps 5 and 8 break, in another epoch each."""
    breaker.factors = {5: NAN, 8: INF}
    whole = runs(changes)
    assert len(whole.lines("fault")) == 2
    for stops in ((4, 5), (6, 7)):
        stopped = runs(changes, "--stop-after", stops[0], exit_code=143)
        assert cli("run", "--resume", stopped.directory, "--stop-after", stops[1]).exit_code == 143
        assert cli("run", "--resume", stopped.directory).exit_code == 0
        assert compare_runs(stopped.directory, whole.directory).differences == []
        assert stopped.bytes("best") == whole.bytes("best")


# --- as on a GPU -------------------------------------------------------------------------------------------------

FUSED = {
    "sgd": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "sgd without momentum": {"name": "sgd", "lr": 0.1, "momentum": 0.0},
    "adam": {"name": "adam", "lr": 0.01, "amsgrad": True},
    "adamw": {"name": "adamw", "lr": 0.01},
    "adagrad": {"name": "adagrad", "lr": 0.01},
}


@pytest.fixture
def on_device(monkeypatch):
    """Fused optimizers are used on the CPU, too; nothing looks at the numbers of a step before the run synchronises."""
    monkeypatch.setattr("ftengine.optim.fuses", lambda options, device: options.has_fused)


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(options, id=name, marks=() if name in ("sgd", "adamw") else pytest.mark.slow)
        for name, options in FUSED.items()
    ],
)
def test_on_a_device_the_optimizer_leaves_the_step_out(runs, breaker, on_device, optimizer):
    """The very first step, too, where torch's own fused SGD would leave its momentum uninitialised."""
    breaker.factors = {1: NAN, 3: NAN}
    norms = {"backbone": {"norm": "none"}}  # statistics of finite passes stay on a device
    run = runs(laid(policy("skip", epochs=1, log_every=3), norms, {"optimizer": optimizer}))
    weights = breaker.weights
    assert weights[1] == weights[2] != weights[3]
    assert [line["step"] for line in run.lines("fault")] == [1, 3]
    (line,) = run.lines("train")
    assert math.isfinite(line["loss"])
    breaker.factors = {}
    plain = runs(laid({"train": {"epochs": 1}}, norms, {"optimizer": optimizer}))
    assert line["loss"] != pytest.approx(plain.lines("train")[1]["loss"], rel=1e-9)
    if optimizer.get("momentum", 1) > 0:  # else it has no state
        assert all(tensor.isfinite().all() for tensor in run.tensors(file="optimizer").values())


def test_on_a_device_it_takes_the_steps_that_the_same_run_takes_on_a_cpu(runs, breaker, monkeypatch):
    breaker.factors = {2: NAN}
    changes = laid(policy("skip", log_every=2), {"backbone": {"norm": "none"}})
    expected = runs(changes)
    monkeypatch.setattr("ftengine.optim.fuses", lambda options, device: options.has_fused)
    run = runs(changes)
    assert [line["step"] for line in run.lines("fault")] == [2]
    for ours, theirs in zip(run.lines("train"), expected.lines("train"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    for name, tensor in run.tensors().items():
        torch.testing.assert_close(tensor, expected.tensors()[name], rtol=1e-4, atol=1e-5)


def test_on_a_device_nothing_waits_for_the_answer(runs, breaker, on_device, monkeypatch):
    """Between two looks no tensor's value is asked for: `bool` and `item` are what would wait."""
    breaker.factors = {2: NAN}
    breaker.look = False
    asked = []
    take = steps.take_step

    def watched(run, feeds, step):
        batches = {name: iter([next(feed)]) for name, feed in feeds.items()}
        with monkeypatch.context() as patch:
            for name in ("__bool__", "item", "tolist", "__float__"):
                patch.setattr(torch.Tensor, name, lambda self, *_, name=name: asked.append((step, name)))
            take(run, batches, step)

    monkeypatch.setattr("ftengine.loop.take_step", watched)
    run = runs(laid(policy("skip", log_every=3), {"optimizer": {"name": "sgd", "lr": 0.1}}))
    assert [line["step"] for line in run.lines("fault")] == [2]
    assert asked == []


@pytest.mark.parametrize("name", ["stop", "rollback"])
def test_on_a_device_the_policy_follows_when_the_run_looks(runs, breaker, on_device, name):
    breaker.factors = {4: INF}
    run = runs(laid(policy(name, epochs=3, log_every=3)), exit_code=1 if name == "stop" else 0)
    assert [line["step"] for line in run.lines("fault")] == [4]
    if name == "stop":
        assert "the loss is not finite at step 4 (epoch 2)" in run.result.stderr
        assert run.checkpoint().name == "step-00000003"
    else:
        assert breaker.weights[7] == breaker.weights[4], "steps 5 and 6 are lost with it"


def test_on_a_device_spoilt_statistics_go_back_to_the_last_look(runs, breaker, on_device):
    breaker.images = {4: NAN}
    run = runs(laid(policy("skip", log_every=2), {"train": {"ema": 0.5}}))
    for file in ("model", "training"):
        assert all(tensor.isfinite().all() for tensor in run.tensors(file=file).values())


# --- fp16 --------------------------------------------------------------------------------------------------------


@pytest.fixture
def scaled(monkeypatch):
    """A scaler as in fp16, on a CPU, and its scale at each step; starts at 4."""
    from ftengine.precision import Precision

    scales = []
    made = Precision.__init__

    def with_scaler(self, *arguments, **options):
        made(self, *arguments, **options)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=100)

    take = steps.take_step

    def noted(run, feeds, step):
        scales.append(run.precision.scaler.get_scale())
        take(run, feeds, step)

    monkeypatch.setattr(Precision, "__init__", with_scaler)
    monkeypatch.setattr("ftengine.loop.take_step", noted)
    return scales


def overflowing(monkeypatch, at):
    """Gradients overflow at the steps `at`, from 1."""
    gradients = steps.compute_gradients

    def broken(run, batches):
        parts = gradients(run, batches)
        if run.step + 1 in at:
            next(p for p in run.model.parameters() if p.grad is not None).grad.fill_(INF)
        return parts

    monkeypatch.setattr(steps, "compute_gradients", broken)


def test_a_gradient_that_overflows_now_and_then_is_the_scaler_s_business(runs, breaker, scaled, monkeypatch):
    overflowing(monkeypatch, {2})
    run = runs({"backbone": {"norm": "none"}})
    assert scaled == [4, 4, 2, 2, 2, 2]
    assert breaker.weights[2] == breaker.weights[3] != breaker.weights[4]
    assert run.lines("fault") == []


def test_a_gradient_that_overflows_whatever_the_scale_is_a_fault(runs, scaled, monkeypatch):
    overflowing(monkeypatch, range(2, 100))
    run = runs(exit_code=1)
    assert scaled == [4, 4, 2, 1]
    assert "the gradient is not finite at step 4 (epoch 2)" in run.result.stderr


def test_a_loss_that_is_not_finite_is_a_fault_at_any_scale(runs, breaker, scaled):
    breaker.factors = {1: INF}
    assert "the loss is not finite at step 1 (epoch 1)" in runs(exit_code=1).result.stderr


# --- the best --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["loss", "accuracy"])
def test_nan_never_becomes_the_best(runs, monkeypatch, mode):
    """The first and the last evaluation of a run of three give NaN for what is monitored."""
    from ftengine import loop

    evaluate, count = loop.evaluate, []

    def broken(*arguments):
        evaluation = evaluate(*arguments)
        count.append(None)
        if len(count) in (2, 4):
            evaluation.monitored = NAN
        return evaluation

    monkeypatch.setattr(loop, "evaluate", broken)
    run = runs({"train": {"epochs": 3, "monitor": mode}})
    assert run.summary["best_epoch"] == 2
    assert run.checkpoint("best").name == "step-00000006"
