"""The catalogue of fine-tuning strategies: names for settings of the components that the other plugins bring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ftengine.plugin import StrategySpec, hookimpl

FTENGINE_API = (1, 0)


def _strategy(name: str, summary: str, when: str, paper: str = "", **settings: Any) -> StrategySpec:
    """`settings` are sections of a config; a freeze policy is part of each strategy, and `none` where it has none."""
    return StrategySpec(name=name, summary=summary, when=when, paper=paper, settings={"freeze": "none", **settings})


@hookimpl
def register_strategies() -> Iterator[StrategySpec]:
    yield _strategy(
        "full",
        "Everything trains at one rate.",
        "many labels, or images unlike those the backbone has seen",
    )
    yield _strategy(
        "probe",
        "Only the heads train, on the frozen backbone's features (linear probing).",
        "few labels and images like those the backbone has seen; the fastest, and a baseline for all others",
        "Alain and Bengio 2017, arXiv:1610.01644",
        freeze="all",
    )
    yield _strategy(
        "lp_ft",
        "The heads alone for half of the epochs, then everything.",
        "the new task must not distort good features: test images unlike the training images",
        "Kumar et al. 2022, arXiv:2202.10054",
        freeze="lp_ft",
    )
    yield _strategy(
        "gradual",
        "Stages unfreeze one after another, from the heads down.",
        "few labels, where full fine-tuning forgets what the backbone knew",
        "Howard and Ruder 2018, arXiv:1801.06146",
        freeze="gradual",
    )
    yield _strategy(
        "surgical",
        "Only the last third of the stages trains, with the heads.",
        "the classes are new, the images are of the kind the backbone has seen",
        "Lee et al. 2023, arXiv:2210.11466",
        freeze={"name": "surgical", "block": "last"},
    )
    yield _strategy(
        "surgical_first",
        "Only the first third of the stages trains, with the heads.",
        "the images look different (noise, blur, another camera), what is in them does not",
        "Lee et al. 2023, arXiv:2210.11466",
        freeze={"name": "surgical", "block": "first"},
    )
    yield _strategy(
        "auto",
        "Only the stage with the largest relative gradient trains, with the heads.",
        "it is not known which stage a new kind of image asks to change",
        "Lee et al. 2023 (Auto-RGN), arXiv:2210.11466",
        freeze="auto",
    )
    yield _strategy(
        "discriminative",
        "Everything trains, the backbone at a tenth of the heads' rate.",
        "a first choice where full fine-tuning is unstable: the common advice",
        optimizer={"backbone_lr_mult": 0.1},
    )
    yield _strategy(
        "llrd",
        "Each stage's rate is 0.65 of the rate of the stage after it; norms and biases do not decay.",
        "transformers, and whenever early features should change least",
        "Clark et al. 2020 (ELECTRA), arXiv:2003.10555; Bao et al. 2022 (BEiT), arXiv:2106.08254",
        optimizer={"layer_decay": 0.65, "decay": "weights"},
    )
    yield _strategy(
        "bias_only",
        "Only the backbone's biases train, with the heads (BitFit).",
        "many models of one backbone: each is a few thousand numbers",
        "Ben Zaken et al. 2022, arXiv:2106.10199",
        freeze="bias_only",
    )
    yield _strategy(
        "norm_only",
        "Only the scales and shifts of the normalisation layers train, with the heads.",
        "as bias_only, for networks with BatchNorm whose images have other statistics",
        "Frankle et al. 2021, arXiv:2003.00152",
        freeze="norm_only",
    )
    yield _strategy(
        "l2_sp",
        "Everything trains, and the squared distance from the start is part of the loss.",
        "few labels, with a backbone that was trained on something close",
        "Li et al. 2018, arXiv:1802.01483",
        regularizers=["l2_sp"],
        optimizer={"weight_decay": 0.0},
    )
    yield _strategy(
        "feature_distill",
        "Everything trains, and the features stay near those of the frozen original.",
        "the backbone must go on doing what it did: other heads use it",
        "Li and Hoiem 2016 (LwF), arXiv:1606.09282; Romero et al. 2015 (FitNets), arXiv:1412.6550",
        regularizers=["feature_distill"],
    )
    yield _strategy(
        "lora",
        "Low-rank updates of the backbone's layers train, with the heads; its own weights stay.",
        "little memory for the optimizer's state, or many models of one backbone",
        "Hu et al. 2022, arXiv:2106.09685",
        adapter="lora",
    )
    yield _strategy(
        "ema",
        "Everything trains; what is evaluated is the moving average of the weights.",
        "noisy evaluations, large learning rates",
        "Polyak and Juditsky 1992; Tarvainen and Valpola 2017, arXiv:1703.01780",
        train={"ema": {"decay": 0.99}},
    )
    yield _strategy(
        "swa",
        "Everything trains; the weights at the ends of the last epochs are averaged.",
        "long runs whose last epochs wander around a good place",
        "Izmailov et al. 2018, arXiv:1803.05407",
        train={"swa": {}},
    )
    yield _strategy(
        "wise_ft",
        "Everything trains; then the backbone's weights are mixed with those it started from.",
        "images unlike the training images must go on working",
        "Wortsman et al. 2022, arXiv:2109.01903",
        train={"wise_ft": {}},
    )
    yield _strategy(
        "mixup",
        "Everything trains, on pairs of images blended or cut together.",
        "long runs that overfit; classification only",
        "Zhang et al. 2018, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899",
        mix={"mixup": 0.2, "cutmix": 1.0},
    )
