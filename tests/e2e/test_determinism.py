"""All randomness is a function of seed, step and sample: the same run gives the same bytes."""

import pytest

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


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
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
