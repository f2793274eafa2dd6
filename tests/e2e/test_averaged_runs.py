"""Runs whose saved model is an average or a mixture of weights, and what every run says of its start."""

import json
import math
import os
import signal

import pytest
import safetensors.torch
import torch

ROW = "backbone.stages.c2.0.0.weight"


def start_of(run):
    return safetensors.torch.load_file(run.directory / "start.safetensors")


@pytest.fixture(scope="module")
def plain(runs):
    return runs({"train": {"epochs": 4}})


@pytest.fixture(scope="module")
def mixed(runs):
    return runs({"train": {"epochs": 4, "wise_ft": {"grid": [0, 0.25, 1]}, "monitor": "loss"}})


def floats(tensors):
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def test_the_start_is_stored_once_and_is_what_training_began_with(runs, plain):
    still = runs({"optimizer": {"name": "sgd", "lr": 1e-30}, "freeze": "all"})
    start = start_of(plain)
    assert start.keys() == plain.tensors().keys()
    assert all(torch.equal(start[name], tensor) for name, tensor in still.tensors().items())
    assert still.summary["moved"] == 0
    assert still.summary["parameters"]["trained"] < still.summary["parameters"]["total"]


def test_how_far_it_moved_is_of_the_best_checkpoint(plain):
    start, best = start_of(plain), plain.tensors("best")
    parameters = [name for name in start if name.startswith("backbone.") and name.endswith(("weight", "bias"))]
    moved = sum(float((best[name].double() - start[name].double()).square().sum()) for name in parameters) ** 0.5
    norm = sum(float(start[name].double().square().sum()) for name in parameters) ** 0.5
    assert plain.summary["moved"] == pytest.approx(moved / norm, rel=1e-9)


# --- stochastic weight averaging -----------------------------------------------------------------------------------


def test_the_stochastic_average_is_of_the_last_epochs(runs):
    """Four epochs from a half on: the mean of the weights after the third and the fourth."""
    swa = {"swa": {"start": 0.5}}
    ends = [runs({"train": {"epochs": epochs}, "schedule": "constant"}).tensors() for epochs in (3, 4)]
    run = runs({"train": {"epochs": 4, **swa}, "schedule": "constant"})
    training = run.tensors(file="training")
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in training.items()), "training is as without"
    average = run.tensors()
    for name, tensor in floats(average).items():
        if "running" not in name:
            torch.testing.assert_close(tensor, (ends[0][name] + ends[1][name]) / 2)
    assert not torch.equal(average["backbone.stages.c1.1.running_mean"], training["backbone.stages.c1.1.running_mean"])


def test_its_own_learning_rate(runs):
    run = runs({"train": {"epochs": 4, "swa": {"start": 0.5, "lr": 0.25}}, "schedule": "constant"})
    assert [line["lr"] for line in run.lines("train")] == pytest.approx([0.01] * 6 + [0.0025] * 6)


def test_an_average_and_a_mixture_of_an_adapted_run_are_refused(config_file, cli):
    result = cli("config", "check", config_file({"train": {"ema": True, "swa": True}}))
    assert result.exit_code == 2
    assert "ema and swa are two averages of the same weights: choose one" in result.output
    result = cli("config", "check", config_file({"train": {"wise_ft": True}, "adapter": "lora"}))
    assert result.exit_code == 2
    assert (
        "train.wise_ft: the weights of the start and the end of a run with an adapter cannot be mixed" in result.output
    )


# --- WiSE-FT ---------------------------------------------------------------------------------------------------------


def test_every_mixture_is_evaluated(mixed):
    report = json.loads((mixed.directory / "wise_ft.json").read_text())
    assert report["primary"] == "loss"
    assert [row["alpha"] for row in report["grid"]] == [1, 0.25, 0]
    assert len({row["loss"] for row in report["grid"]}) == 3
    last = mixed.lines("val")[-1]
    assert report["grid"][0]["loss"] == pytest.approx(last["loss"]), "1 is the end"


def test_a_mixture_is_of_the_backbone_by_hand(runs, cli):
    """At a rate that does harm, the start is better than any epoch; the heads stay those of the end."""
    changes = {"optimizer": {"name": "sgd", "lr": 0.5}, "schedule": "constant"}
    train = {"epochs": 3, "monitor": "loss", "wise_ft": {"grid": [0.5, 1.0]}}
    run = runs({**changes, "train": train})
    report = json.loads((run.directory / "wise_ft.json").read_text())
    start, end, best = start_of(run), run.tensors("last"), run.tensors("best")
    if report["chosen"] is None:
        assert run.checkpoint("best").name.endswith(("3", "6", "9"))
        pytest.fail("the case is meant to choose a mixture; give it another rate")
    assert report["chosen"] == 0.5
    assert run.checkpoint("best").name == "step-00000009-mixed"
    for name, tensor in floats(best).items():
        expected = (start[name] + end[name]) / 2 if name.startswith("backbone.") else end[name]
        torch.testing.assert_close(tensor, expected)
    chosen = next(row for row in report["grid"] if row["alpha"] == 0.5)
    assert run.summary["metrics"]["val"]["loss"] == chosen["loss"]
    assert cli("evaluate", run.directory).exit_code == 0
    measured = json.loads((run.directory / "evaluation-val.json").read_text())
    assert measured["metrics"]["loss"] == pytest.approx(chosen["loss"])
    before = run.bytes("best")
    summary = run.summary
    assert cli("run", "--resume", run.directory).exit_code == 0, "it is over, and stays as it is"
    assert run.bytes("best") == before
    assert run.checkpoint("best").name == "step-00000009-mixed"
    assert run.summary["metrics"] == summary["metrics"]


def test_a_mixture_whose_loss_is_not_finite_is_never_the_best(runs, monkeypatch):
    import ftengine.wise_ft as module

    def broken(run, which, **options):
        found = evaluate_split(run, which, **options)
        found.values["loss"], found.monitored = math.nan, 1.0
        return found

    evaluate_split = module.evaluate_split
    monkeypatch.setattr(module, "evaluate_split", broken)
    run = runs({"train": {"wise_ft": {"grid": [0.5, 1.0]}}})
    assert json.loads((run.directory / "wise_ft.json").read_text())["chosen"] is None
    assert "mixed" not in run.checkpoint("best").name


def test_a_signal_between_mixtures_ends_the_run_and_the_next_process_mixes(runs, cli, monkeypatch):
    import ftengine.wise_ft as module

    def interrupted(run, which, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return evaluate_split(run, which, **options)

    evaluate_split = module.evaluate_split
    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate_split", interrupted)
        run = runs({"strategy": "wise_ft"}, exit_code=130)
    assert not (run.directory / "wise_ft.json").exists()
    assert cli("run", "--resume", run.directory).exit_code == 0
    assert len(json.loads((run.directory / "wise_ft.json").read_text())["grid"]) == 11
    assert run.summary["strategy"] == "wise_ft", "a resumed run is still of its strategy"


def test_a_checkpoint_that_is_better_than_every_mixture_stays(runs):
    run = runs({"train": {"epochs": 4, "wise_ft": {"grid": [0.0]}, "monitor": "loss"}})
    assert json.loads((run.directory / "wise_ft.json").read_text())["chosen"] is None
    assert run.summary["metrics"]["val"]["loss"] == min(line["loss"] for line in run.lines("val")[1:])
    assert "no mixture is better than the best checkpoint" in run.result.stdout
