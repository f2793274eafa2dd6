"""What the options of training do to a run."""

import json
import math

import pytest
import torch

PLAIN = {"backbone": {"norm": "none"}, "optimizer": {"name": "sgd", "lr": 0.1}}


@pytest.fixture(scope="module")
def finished(runs):
    return runs({"train": {"epochs": 3}})


def test_metrics_lines(finished):
    lines = finished.lines()
    steps = [(step, split) for step in range(1, 10) for split in (("train", "val") if step % 3 == 0 else ("train",))]
    assert [(line["step"], line["split"]) for line in lines] == [(0, "val"), *steps], "the start is evaluated, too"
    for line in lines:
        assert line["epoch"] == pytest.approx(line["step"] / 3, abs=1e-4)
        assert math.isfinite(line["loss"])
    for line in finished.lines("train"):
        assert line["loss"] == line["loss/cross_entropy"]
        assert line["images_per_second"] > 0


def test_summary(finished):
    summary = finished.summary
    assert {
        "task",
        "metrics",
        "primary",
        "epochs",
        "seconds",
        "images_per_second",
        "device",
        "precision",
    } <= summary.keys()
    assert (summary["task"], summary["primary"], summary["epochs"]) == ("classification", "accuracy", 3)
    assert (summary["device"], summary["precision"]) == ("cpu", "fp32")
    assert summary["seconds"] > 0
    by_step = {line["step"]: line for line in finished.lines("val")}
    start = by_step.pop(0)
    assert summary["start"] == {key: start[key] for key in ("loss", "accuracy", "f1")}
    assert summary["parameters"] == {"total": 6474, "trained": 6474}
    assert 0 < summary["moved"] < 10
    assert summary["peak_memory"]["of"] == "process"
    assert summary["peak_memory"]["bytes"] >= 4 * 6474, "the model's own size at least"
    best = by_step[summary["best_step"]]
    assert summary["metrics"]["val"] == {key: best[key] for key in ("loss", "accuracy", "f1")}
    assert best["accuracy"] == max(line["accuracy"] for line in by_step.values())


def test_logged_losses_are_means_over_the_steps_since_the_last(finished, runs):
    each = [line["loss"] for line in finished.lines("train")]
    summed = [line["loss"] for line in runs({"train": {"epochs": 3, "log_every": 3}}).lines("train")]
    assert summed == pytest.approx([sum(each[i : i + 3]) / 3 for i in (0, 3, 6)])


def test_training_learns(runs):
    run = runs({"data": {"limit": 400}, "train": {"epochs": 8}, "optimizer": {"lr": 0.02}})
    assert run.summary["metrics"]["val"]["accuracy"] > 0.6


def test_parts_of_a_batch_add_up_to_the_batch(runs):
    whole = runs(PLAIN).tensors()
    parts = runs({**PLAIN, "train": {"accumulate": 4}}).tensors()
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=0, atol=1e-6)
    start = runs({**PLAIN, "optimizer": {"name": "sgd", "lr": 1e-30}}).tensors()
    assert max(float((whole[name] - start[name]).abs().max()) for name in whole) > 1e-3, "it has moved at all"


def test_parts_of_a_batch_give_the_same_logged_loss(runs):
    whole, parts = runs(PLAIN), runs({**PLAIN, "train": {"accumulate": 4}})
    losses = [[line["loss"] for line in run.lines("train")] for run in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def moved(after, before):
    return math.sqrt(sum(float((after[name] - before[name]).double().pow(2).sum()) for name in after))


def test_clip_norm_bounds_the_step(runs):
    """One step of plain SGD moves the weights by lr times the gradient's norm."""
    one_step = {"data": {"limit": 64, "val_fraction": 0.75}, "train": {"epochs": 1}}
    still = runs({**PLAIN, **one_step, "optimizer": {"name": "sgd", "lr": 1e-30}}).tensors()
    steps = {}
    for norm in (None, 1e-3, 1e6):
        schedule = {"name": "constant"}
        run = runs({**PLAIN, **one_step, "schedule": schedule, "train": {"epochs": 1, "clip_norm": norm}})
        assert len(run.lines("train")) == 1
        steps[norm] = moved(run.tensors(), still)
    assert steps[1e-3] == pytest.approx(0.1 * 1e-3, rel=1e-2)
    assert steps[None] > 10 * steps[1e-3]
    assert steps[1e6] == steps[None]


def test_early_stopping(runs):
    """Nothing improves at a learning rate of next to nothing."""
    still = {"optimizer": {"name": "sgd", "lr": 1e-30}, "backbone": {"norm": "none"}}
    run = runs({**still, "train": {"epochs": 9, "early_stopping": 2}})
    assert run.summary["epochs"] == 3
    assert run.summary["best_epoch"] == 1
    assert [line["step"] for line in run.lines("val")] == [0, 3, 6, 9]
    run = runs({"train": {"epochs": 5, "early_stopping": {"patience": 1, "min_delta": 2}}})
    assert run.summary["epochs"] == 2, "accuracy cannot rise by 2"


def test_average_of_weights_is_saved_and_evaluated(runs, cli):
    plain, run = runs({"train": {"epochs": 3}}), runs({"train": {"epochs": 3, "ema": {"decay": 0.9, "warmup": False}}})
    average, training = run.tensors(), run.tensors(file="training")
    name = "heads.classification.classifier.1.weight"
    assert not torch.equal(average[name], training[name])
    assert all(torch.equal(training[key], value) for key, value in plain.tensors().items()), "training is as without"
    assert run.lines("val")[-1]["loss"] != plain.lines("val")[-1]["loss"]
    assert cli("evaluate", run.directory).exit_code == 0
    measured = json.loads((run.directory / "evaluation-val.json").read_text())
    assert measured["metrics"] == run.summary["metrics"]["val"]


def test_average_of_weights_by_hand(runs):
    """Two steps: the average is decay * (decay * w0 + (1 - decay) * w1) + (1 - decay) * w2."""
    half = {"data": {"limit": 64, "val_fraction": 0.5}, "schedule": {"name": "constant"}}
    still = {**half, "optimizer": {"name": "sgd", "lr": 1e-30, "weight_decay": 0.0}, "backbone": {"norm": "none"}}
    moving = {**half, "optimizer": {"name": "sgd", "lr": 0.1}, "backbone": {"norm": "none"}}
    w0 = runs({**still, "train": {"epochs": 1}}).tensors()
    w1 = runs({**moving, "train": {"epochs": 1, "batch_size": 32}}).tensors()
    w2 = runs({**moving, "train": {"epochs": 2, "batch_size": 32}}).tensors()
    ema = {"decay": 0.75, "warmup": False}
    average = runs({**moving, "train": {"epochs": 2, "batch_size": 32, "ema": ema}}).tensors()
    name = "backbone.stages.c3.0.weight"
    expected = 0.75 * (0.75 * w0[name] + 0.25 * w1[name]) + 0.25 * w2[name]
    torch.testing.assert_close(average[name], expected, rtol=0, atol=1e-6)


def test_evaluate_equals_the_summary(finished, runs, cli):
    tested = runs({"data": {"test_fraction": 0.2}, "train": {"eval_batch_size": 7}})
    for run, splits in ((finished, ["val"]), (tested, ["val", "test"])):
        for split in splits:
            result = cli("evaluate", run.directory, "--split", split)
            assert result.exit_code == 0, result.output
            measured = json.loads((run.directory / f"evaluation-{split}.json").read_text())
            assert measured["metrics"] == run.summary["metrics"][split]
            assert measured["checkpoint"] == run.checkpoint("best").name


def test_no_test_split(finished, cli):
    result = cli("evaluate", finished.directory, "--split", "test")
    assert result.exit_code == 1
    assert "the run has no test split" in result.stderr


def test_eval_every(runs):
    run = runs({"train": {"epochs": 5, "eval_every": 2}})
    assert [line["step"] for line in run.lines("val")] == [0, 6, 12, 15], "the start, every second epoch, and the last"


def test_monitor_loss(runs):
    run = runs({"train": {"epochs": 4, "monitor": "loss"}, "optimizer": {"lr": 0.3}})
    assert run.summary["primary"] == "loss"
    by_step = {line["step"]: line["loss"] for line in run.lines("val")}
    start = by_step.pop(0)
    assert run.summary["best_step"] == min(by_step, key=by_step.get)
    assert start < min(by_step.values()), "a rate so high does harm"
    assert f"loss was better at the start: {start:.4g}" in run.result.stdout


def test_only_best_and_last_checkpoints_stay(runs):
    """Nothing changes at a learning rate of next to nothing, so that the first evaluation is the best."""
    run = runs({**PLAIN, "optimizer": {"name": "sgd", "lr": 1e-30}, "train": {"epochs": 4}})
    names = {entry.name for entry in (run.directory / "checkpoints").iterdir()}
    assert names == {"best.json", "last.json", "step-00000003", "step-00000012"}
    assert (run.checkpoint("best").name, run.checkpoint("last").name) == ("step-00000003", "step-00000012")


def test_a_metric_that_is_undefined_is_null_in_every_file(runs, cli):
    """Six samples of val do not hold all ten classes, so that a class's AUROC has no value."""
    run = runs({"metrics": ["accuracy", {"name": "auroc", "per_class": True}], "data": {"limit": 24}})
    assert cli("evaluate", run.directory).exit_code == 0
    for name in ("metrics.jsonl", "summary.json", "evaluation-val.json"):
        text = (run.directory / name).read_text()
        assert "NaN" not in text
        assert "null" in text


def test_bf16(runs):
    run = runs({"train": {"precision": "bf16"}})
    assert run.summary["precision"] == "bf16"
    assert all(tensor.dtype != torch.bfloat16 for tensor in run.tensors().values()), "the weights stay in float32"


def test_no_gpu_is_said_before_training(runs, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert "cuda is not available on this machine; available: cpu" in (
        runs({"train": {"device": "cuda"}}, exit_code=1).result.stderr
    )
    assert "fp16 needs a GPU" in runs({"train": {"precision": "fp16"}}, exit_code=1).result.stderr


def test_a_gain_below_min_delta_is_the_best_but_does_not_reset_patience(runs):
    train = {"epochs": 6, "early_stopping": {"patience": 2, "min_delta": 10.0}, "monitor": "loss"}
    run = runs({"train": train})
    evaluations = run.lines("val")[1:]
    assert len(evaluations) == 3  # the first counts as an improvement, the two after it do not
    losses = [line["loss"] for line in evaluations]
    assert min(losses) < losses[0]
    assert run.summary["metrics"]["val"]["loss"] == min(losses)
