"""All randomness is a function of seed, step and sample: the same run gives the same bytes, stopped or not."""

import itertools

import pytest
import torch
import yaml

AUGMENTED = {
    "head": {"name": "mlp", "hidden": [16], "dropout": 0.5},
    "augment": [{"name": "Affine", "rotate": [-20, 20], "p": 0.7}, {"name": "GaussNoise", "p": 0.5}],
}


@pytest.fixture(scope="module")
def reference(runs):
    return runs(AUGMENTED)


def test_the_same_seed_gives_the_same_bytes(reference, runs):
    again = runs(AUGMENTED)
    assert again.bytes() == reference.bytes()
    assert again.summary["metrics"] == reference.summary["metrics"]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_matter(reference, runs, workers):
    assert runs({**AUGMENTED, "train": {"workers": workers}}).bytes() == reference.bytes()


def test_logging_and_evaluation_do_not_matter(reference, runs):
    quiet = runs({**AUGMENTED, "train": {"log_every": 100, "eval_every": 2, "eval_batch_size": 5}})
    assert quiet.bytes() == reference.bytes()


def test_another_seed_gives_other_weights(reference, runs):
    other = runs({**AUGMENTED, "train": {"seed": 1}})
    assert other.bytes() != reference.bytes()


def test_augmentation_and_dropout_are_really_on(reference, runs):
    assert runs({**AUGMENTED, "augment": []}).bytes() != reference.bytes()
    assert runs({**AUGMENTED, "head": {**AUGMENTED["head"], "dropout": 0.0}}).bytes() != reference.bytes()


def test_the_resolved_config_gives_the_same_run(reference, cli, tmp_path):
    result = cli("run", "--config", reference.directory / "resolved.yaml", "--output", tmp_path / "again")
    assert result.exit_code == 0, result.output
    again = type(reference)(tmp_path / "again", result)
    assert again.bytes() == reference.bytes()
    assert again.resolved == reference.resolved


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"name": "adamw", "lr": 0.01}, "schedule": {"name": "one_cycle"}, "train": {"ema": 0.9}},
        {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}, "train": {"accumulate": 2, "clip_norm": 1.0}},
        {"optimizer": {"name": "rmsprop", "lr": 0.001}, "freeze": {"name": "acme/first_epochs", "epochs": 2}},
        {"schedule": {"name": "step", "every_epochs": 1, "warmup_epochs": 1}, "train": {"early_stopping": 2}},
        {"freeze": {"name": "gradual", "epochs_per_stage": None, "warmup_epochs": 0.5}},
        {"freeze": {"name": "lp_ft", "probe_epochs": 1}, "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}},
        {"freeze": {"name": "auto", "probe_epochs": 1, "batches": 2}, "regularizers": ["l2_sp", "feature_distill"]},
        {"schedule": {"name": "plateau", "patience": 0, "min_delta": 1.0}, "train": {"swa": {"start": 0.3, "lr": 0.5}}},
    ],
    ids=[
        "adamw, one cycle, ema",
        "sgd, accumulate, clip",
        "rmsprop, unfreezing",
        "adamw, step, early stopping",
        "gradual with warm-up",
        "lp_ft",
        "auto after a probe, near the start",
        "plateau, swa",
    ],
)
@pytest.mark.parametrize("stops", [(2,), (3, 4), (7, 8)], ids=str)
def test_a_run_that_was_stopped_ends_with_the_same_bytes(runs, cli, tmp_path, changes, stops):
    """Three epochs of three steps; stopped after each of `stops`, in the middle and at the end of an epoch."""
    trigger = tmp_path / "trigger"
    parts = changes.get("train", {}).get("accumulate", 1)
    measured = changes.get("freeze", {}).get("batches", 0)  # before the fourth step, by a policy that asks for them
    done = [0, *stops]

    def config(step_in_process):
        at = step_in_process * parts + (measured if step_in_process > 3 else 0)
        loss = {"name": "saboteur/failing", "what": "SIGINT", "at": at, "trigger": str(trigger)}
        train = {"epochs": 3, "log_every": 2, **changes.get("train", {})}
        return {**AUGMENTED, **changes, "train": train, "loss": loss}

    whole = runs(config(stops[0]))
    trigger.touch()
    stopped = runs(config(stops[0]), exit_code=130)
    for before, after in itertools.pairwise(stops):
        # The loss counts the batches of its process; where it fails next is no part of what is computed.
        file = stopped.directory / "resolved.yaml"
        resolved = yaml.safe_load(file.read_text())
        resolved["loss"]["at"] = (after - before) * parts + (measured if before == 3 else 0)
        file.write_text(yaml.safe_dump(resolved))
        assert cli("run", "--resume", stopped.directory).exit_code == 130
    assert stopped.checkpoint().name == f"step-{done[-1]:08d}"
    trigger.unlink()
    assert cli("run", "--resume", stopped.directory).exit_code == 0
    assert stopped.bytes() == whole.bytes()
    assert stopped.bytes("best") == whole.bytes("best")
    for file in ("optimizer", "training") if {"ema", "swa"} & changes.get("train", {}).keys() else ("optimizer",):
        ours, theirs = stopped.tensors(file=file), whole.tensors(file=file)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert stopped.summary["metrics"] == whole.summary["metrics"]
    logged = [[{**line, "images_per_second": None} for line in run.lines()] for run in (stopped, whole)]
    assert [line["step"] for line in logged[1] if line["split"] == "train"] == [2, 3, 4, 6, 8, 9]
    assert logged[0] == logged[1]


def test_a_resumed_run_may_use_other_workers(runs, cli, tmp_path):
    trigger = tmp_path / "trigger"
    loss = {"name": "saboteur/failing", "what": "SIGTERM", "at": 2, "trigger": str(trigger)}
    whole = runs({**AUGMENTED, "loss": loss})
    trigger.touch()
    stopped = runs({**AUGMENTED, "loss": loss}, exit_code=143)
    trigger.unlink()
    assert cli("run", "--resume", stopped.directory, "--set", "train.workers=2").exit_code == 0
    assert stopped.bytes() == whole.bytes()
