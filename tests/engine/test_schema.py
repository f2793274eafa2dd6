"""The JSON Schema agrees with the reader: it accepts every example and refuses what a config must not hold."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from ftengine.document import Loader
from ftengine.host import Host
from ftengine.schema import config_schema

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))


@pytest.fixture(scope="module")
def schema():
    return config_schema(Host.discover())


@pytest.fixture(scope="module")
def valid(schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).is_valid


def example(**changes):
    base = {"task": "classification", "data": "digits", "backbone": {"name": "resnet18", "weights": "none"}}
    return {**base, **changes}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_every_example_is_valid(valid, file):
    assert valid(yaml.load(file.read_text(), Loader=Loader))


def references(value):
    if isinstance(value, dict):
        yield from [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_points_at_a_definition_and_every_definition_is_used(schema):
    used = set(references(schema))
    defined = {f"#/$defs/{name}" for name in schema["$defs"]}
    assert used - defined == set()
    assert defined - used == set()


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"ema": True}},
        {"train": {"ema": 0.99}},
        {"train": {"ema": {}}},
        {"train": {"ema": {"decay": 0.9}, "early_stopping": 3}},
        {"train": {"early_stopping": {"patience": 3}, "workers": 2, "channels_last": False}},
        {"image": {"size": 32, "mean": [0, 0, 0]}},
        {"image": {"size": [32, 64]}},
        {"backbone": "resnet18"},
        {"backbone": {"name": "resnet18", "weights": {"source": "a.pth", "allow": ["fc.*"]}}},
        {"head": {"name": "mlp", "hidden": [3]}, "loss": "focal", "metrics": ["f1", {"name": "top_k", "k": 2}]},
        {"optimizer": {"name": "sgd", "lr": 1e-4}, "schedule": {"name": "step", "gamma": 0.5}},
        {"augment": ["HorizontalFlip", {"name": "Rotate", "limit": 10}]},
        {"freeze": {"name": "stages", "through": "c3"}, "data": {"format": "folder", "train": "a"}},
        {"plugins": {"require": ["timm"]}},
    ],
)
def test_right_configs_are_valid(valid, changes):
    assert valid(example(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser": "adam"},
        {"task": "clasification"},
        {"task": 3},
        {"data": "digit"},
        {"data": {"format": "digits", "limt": 3}},
        {"data": {"format": "folder"}},
        {"backbone": "resnet19"},
        {"backbone": {"weights": "none"}},
        {"backbone": {"name": "resnet18", "weights": {"allow": []}}},
        {"head": {"name": "linear", "dropuot": 0.1}},
        {"head": {"name": "linear", "dropout": 1.5}},
        {"metrics": "accuracy"},
        {"metrics": [{"name": "top_k", "k": 0}]},
        {"optimizer": {"name": "sgd", "lr": 0}},
        {"optimizer": {"lr": "fast"}},
        {"schedule": {"name": "step", "every": 3}},
        {"train": {"epochs": 0}},
        {"train": {"ema": "yes"}},
        {"train": {"early_stopping": 0}},
        {"train": {"precision": "fp8"}},
        {"train": None},
        {"image": {"size": [1, 2, 3]}},
        {"image": {"size": "big"}},
        {"augment": ["HorizontalFlp"]},
        {"augment": [{"name": "HorizontalFlip", "q": 1}]},
        {"tasks": {"a": {"head": "linear"}}},
        {"tasks": {"a": {"task": "classification", "weight": 0}}},
    ],
)
def test_wrong_configs_are_not(valid, changes):
    assert not valid(example(**changes))


def test_a_backbone_is_required(valid):
    assert not valid({"task": "classification"})


def test_a_third_party_s_components_are_in_it(distributions):
    distributions.plugin(
        "acme",
        """
        class TinyOptions(Options):
            width: int = 8

        @hookimpl
        def register_backbones():
            yield BackboneSpec(name="tiny", factory="m:f", summary="Small.", options=TinyOptions)
        """,
    )
    accepts = jsonschema.Draft202012Validator(config_schema(Host.discover())).is_valid
    assert accepts({"backbone": {"name": "acme/tiny", "width": 3, "weights": "none"}})
    assert not accepts({"backbone": {"name": "acme/tiny", "wdth": 3}})
    assert not accepts({"backbone": "tiny"})
