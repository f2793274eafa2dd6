"""A strategy fills in what a config leaves out, says where from, and never overrules it."""

import pytest
import yaml
from config_files import DIGITS

from ftengine.document import Document, Origin, walk
from ftengine.plugin import StrategySpec
from ftengine.strategy import fill_in


def filled(data, settings):
    problems = []
    document = Document(data, {path: Origin("file") for path in walk(data, ()) if path})
    spec = StrategySpec(name="acme", summary="One.", settings=settings)
    fill_in(document, "acme", spec, lambda path, message: problems.append((path, message)))
    return document, problems


@pytest.mark.parametrize(
    ("data", "settings", "expected"),
    [
        ({}, {"freeze": "all"}, {"freeze": {"name": "all"}}),
        ({"freeze": "all"}, {"freeze": "all"}, {"freeze": "all"}),
        (
            {"freeze": {"frozen_norm": "train"}},
            {"freeze": {"name": "all", "frozen_norm": "eval"}},
            {"freeze": {"frozen_norm": "train", "name": "all"}},
        ),
        (
            {"optimizer": "sgd"},
            {"optimizer": {"layer_decay": 0.5}},
            {"optimizer": {"name": "sgd", "layer_decay": 0.5}},
        ),
        ({"optimizer": {"layer_decay": 0.9}}, {"optimizer": {"layer_decay": 0.5}}, {"optimizer": {"layer_decay": 0.9}}),
        ({"train": {"epochs": 3}}, {"train": {"swa": {}}}, {"train": {"epochs": 3, "swa": {}}}),
        ({"train": {"ema": 0.9}}, {"train": {"ema": {"decay": 0.5}}}, {"train": {"ema": 0.9}}),
        (
            {"train": {"ema": {"warmup": False}}},
            {"train": {"ema": {"decay": 0.5}}},
            {"train": {"ema": {"warmup": False, "decay": 0.5}}},
        ),
        ({}, {"regularizers": ["l1"]}, {"regularizers": ["l1"]}),
        (
            {"regularizers": {"name": "l1", "strength": 1}},
            {"regularizers": ["l1", {"name": "l2_sp", "head": 0}]},
            {"regularizers": [{"name": "l1", "strength": 1}, {"name": "l2_sp", "head": 0}]},
        ),
    ],
)
def test_what_is_left_out_is_filled_in(data, settings, expected):
    document, problems = filled(data, settings)
    assert problems == []
    assert document.data == expected


def test_what_was_filled_in_says_where_from():
    document, _ = filled({"optimizer": {"name": "sgd"}}, {"optimizer": {"layer_decay": 0.5}, "freeze": "all"})
    assert str(document.origins[("optimizer", "layer_decay")]) == "strategy acme"
    assert str(document.origins[("freeze", "name")]) == "strategy acme"
    assert str(document.origins[("optimizer", "name")]) == "file"


@pytest.mark.parametrize("written", ["none", {"name": "none"}])
def test_another_component_is_not_this_strategy(written):
    document, problems = filled({"freeze": written}, {"freeze": "all"})
    ((path, message),) = problems
    assert path == ("freeze",)
    assert message == "the strategy 'acme' sets 'all', but this says 'none': leave one of them out"
    assert document.data == {"freeze": written}


@pytest.mark.parametrize(
    ("data", "settings", "place"),
    [
        ({"adapter": None}, {"adapter": "lora"}, ("adapter",)),
        ({"train": {"ema": None}}, {"train": {"ema": {"decay": 0.5}}}, ("train", "ema")),
    ],
)
def test_nothing_is_not_this_strategy_either(data, settings, place):
    document, problems = filled(data, settings)
    ((path, message),) = problems
    assert path == place
    assert message == "the strategy 'acme' sets this, but the file says null: leave one of them out"
    assert document.data == data


def test_a_config_with_a_strategy_becomes_a_plan_without(plan):
    made = plan(DIGITS, "strategy=llrd", "optimizer.lr=0.01")
    assert made.strategy == "llrd"
    assert (made.config.optimizer.layer_decay, made.optimizer.lr, made.optimizer.torch_name) == (0.65, 0.01, "AdamW")
    again = plan(yaml.safe_dump(made.resolved()))
    assert again.strategy is None
    assert again.resolved() == made.resolved()


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["strategy=lrd"], "strategy: unknown strategy 'lrd'; did you mean 'llrd'?"),
        (["strategy=probe", "freeze=none"], "freeze: the strategy 'probe' sets 'all', but this says 'none'"),
        (["strategy=probe", "freeze.name=none"], "freeze: the strategy 'probe' sets 'all', but this says 'none'"),
        (["strategy=lora", "adapter.rnk=4"], "adapter.rnk: "),
        (["strategy=wise_ft", "adapter=lora"], "train.wise_ft: the weights of the start and the end of a run with an"),
    ],
)
def test_mistakes(refused, assignments, message):
    assert any(message in f"{path}: {text}" for _, path, text in refused(DIGITS, *assignments))
