"""What would do nothing in a run is refused before training, and what would do something is not."""

import pytest

MUTE = {"params": "*", "lr_mult": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"freeze": {"name": "all", "warmup_epochs": 1}},
            "freeze.warmup_epochs: with the policy 'all' nothing unfreezes",
        ),
        ({"freeze": {"name": "none", "frozen_norm": "train"}}, "freeze.frozen_norm: the policy 'none' freezes nothing"),
        (
            {"freeze": {"name": "lp_ft", "warmup_epochs": 2}},
            "freeze.warmup_epochs: a warm-up of 2 epochs in the 2 that are left of the run of 4",
        ),
        (
            {"freeze": "all", "adapter": "lora"},
            "adapter: nothing of it would train, as the policy 'all' keeps the whole",
        ),
        (
            {"freeze": "all", "train": {"wise_ft": True}},
            "train.wise_ft: the policy 'all' keeps the whole backbone frozen",
        ),
        ({"freeze": "all", "regularizers": "feature_distill"}, "regularizers: feature_distill is of the backbone"),
        ({"freeze": "all", "regularizers": {"name": "l1", "part": "backbone"}}, "regularizers: l1 is of the backbone"),
        ({"freeze": "all", "regularizers": {"name": "l2_sp", "head": 0}}, "regularizers: l2_sp is of the backbone"),
        ({"regularizers": ["l1", "l1"]}, "regularizers[1]: l1 is given twice"),
        ({"optimizer": {"rules": [MUTE]}}, "optimizer.rules: every learning rate is 0, so that nothing would train"),
    ],
    ids=str,
)
def test_what_does_nothing_is_refused(config_file, cli, third_party, changes, message):
    file = config_file({"train": {"epochs": 4, **changes.pop("train", {})}, **changes})
    for command in (("config", "check", file, "--build"), ("run", "--config", file, "--output", file.parent / "run")):
        result = cli(*command)
        assert result.exit_code in (1, 2)
        assert message in result.output
    assert not (file.parent / "run").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"freeze": {"name": "lp_ft", "warmup_epochs": 1.5, "frozen_norm": "train"}},
        {"freeze": {"name": "auto", "warmup_epochs": 1, "probe_epochs": 1}, "regularizers": "feature_distill"},
        {"freeze": "all", "regularizers": ["l2_sp", "l1"]},
        {"freeze": "all", "train": {"wise_ft": {"heads": True}}},
        {"regularizers": [{"name": "l1", "part": "head"}, {"name": "l1", "part": "backbone", "strength": 1e-6}]},
        {"adapter": "lora", "freeze": "gradual"},
    ],
    ids=str,
)
def test_what_does_something_is_not(config_file, cli, third_party, changes):
    file = config_file({"train": {"epochs": 4, **changes.pop("train", {})}, **changes})
    result = cli("config", "check", file, "--build")
    assert result.exit_code == 0, result.output
