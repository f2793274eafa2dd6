"""Parts of one image, where BatchNorm has nothing to normalise over."""

BACKBONE = {"name": "resnet18", "weights": "none"}
CONFIG = {"backbone": BACKBONE, "image": {"size": 32}, "data": {"limit": 40}, "train": {"epochs": 1, "batch_size": 1}}


def test_one_value_a_channel_is_refused_before_the_first_step(runs):
    run = runs(CONFIG, exit_code=1)
    assert "train.batch_size 1 in 1 parts is one image a part" in run.result.output


def test_frozen_layers_do_not_mind(runs):
    assert runs({**CONFIG, "freeze": "all"}).summary["epochs"] == 1
