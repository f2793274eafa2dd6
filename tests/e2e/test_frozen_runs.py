"""What is frozen stays as it was, bit for bit, with its running statistics; the rest moves."""

import pytest
import torch

START = {"optimizer": {"name": "sgd", "lr": 1e-30}}
"""Weights that do not move."""


@pytest.fixture(scope="module")
def start(runs):
    """The first weights of every run here: BatchNorm's statistics are frozen, too, at their first values."""
    return runs({**START, "freeze": "all"}).tensors()


def differing(run, start):
    tensors = run.tensors()
    assert tensors.keys() == start.keys()
    return {name for name in tensors if not torch.equal(tensors[name], start[name])}


def trainable(start, *prefixes):
    return {name for name in start if name.startswith(prefixes)}


HEAD = "heads."


@pytest.mark.parametrize(
    ("freeze", "moving"),
    [
        ("all", (HEAD,)),
        ({"name": "stages", "through": "c2"}, (HEAD, "backbone.stages.c3.")),
        ({"name": "stages", "only": ["c1", "c3"]}, (HEAD, "backbone.stages.c2.")),
        ({"name": "patterns", "patterns": ["c1.*", "c2.1.*"]}, (HEAD, "backbone.stages.c3.", "backbone.stages.c2.0.")),
        ("none", (HEAD, "backbone.")),
    ],
    ids=str,
)
def test_what_is_frozen_stays_and_the_rest_moves(runs, start, freeze, moving):
    run = runs({"freeze": freeze})
    assert differing(run, start) == trainable(start, *moving)


def test_statistics_of_what_trains_move_and_those_of_what_is_frozen_do_not(start):
    names = {name for name in start if "running" in name}
    assert len(names) == 6
    for name in names:
        first = torch.zeros_like(start[name]) if name.endswith("mean") else torch.ones_like(start[name])
        assert torch.equal(start[name], first), name


def test_the_table_of_stages_says_so(runs):
    rows = {
        cells[0]: cells
        for line in runs({"freeze": {"name": "stages", "through": "c1"}}).result.stdout.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("│").split("│")]) == 6
    }
    assert rows["c1"][1:] == ["240", "0", "-", "-", "eval"]
    assert rows["c2"][1:] == ["1,200", "1,200", "1.00e-02", "1.00e-02", "train"]
    assert rows["head"][1:] == ["330", "330", "1.00e-02", "1.00e-02", "-"]
    assert rows["all"][2] == f"{1200 + 4704 + 330:,}"


def test_frozen_with_an_average_of_weights_and_weight_decay(runs, start):
    changes = {"optimizer": {"weight_decay": 0.5}, "train": {"ema": 0.9}}
    assert differing(runs({**changes, "freeze": "all"}), start) == trainable(start, HEAD)


def test_a_stage_that_the_backbone_lacks(runs):
    text = runs({"freeze": {"name": "stages", "through": "c4"}}, exit_code=1).result.stderr
    assert "freeze.through: unknown stage 'c4'" in text
    assert "the backbone's stages: c1, c2, c3" in text
