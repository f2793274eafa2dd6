"""The small run that a component is checked in: what an author lays over it, for all components and for one."""

import pytest

from ftengine.testing.subject import subjects

PLUGIN = """
from pydantic import Field
from ftengine.plugin import *

FTENGINE_API = (1, 1)

class Width(Options):
    width: int = Field(8, description="Channels.")

@hookimpl
def register_backbones():
    for name in ("small", "large"):
        yield BackboneSpec(name=name, factory="nowhere:thing", summary="A thing.", options=Width)

@hookimpl
def register_datasets():
    yield DatasetSpec(name="things", factory="nowhere:thing", summary="Things.", fields=("label",))
"""
CONFIG = {"backbone": {"name": "mine/small", "weights": "none", "width": 4}, "data": {"format": "digits", "limit": 9}}


@pytest.fixture
def configs(install_plugin):
    """The small run's config of each component, by name, with what is laid over it."""
    install_plugin("mine", PLUGIN)

    def make(config, configs=None):
        return {subject.component.name: subject.config for subject in subjects("mine", config, configs)}

    return make


def test_a_component_that_all_are_tried_with_does_not_take_another_ones_place(configs):
    found = configs(CONFIG)
    assert found["mine/small"]["backbone"] == {"name": "mine/small", "weights": "none", "width": 4}
    assert found["mine/large"]["backbone"] == {"name": "mine/large", "weights": "none"}
    assert found["mine/large"]["data"]["limit"] == 9
    assert found["mine/things"]["backbone"]["width"] == 4
    assert found["mine/things"]["data"] == {"format": "mine/things"}


def test_what_is_said_of_one_component_is_laid_over_that(configs):
    found = configs(CONFIG, {"backbone large": {"backbone": {"width": 2}}, "things": {"data": {"train": "here"}}})
    assert found["mine/large"]["backbone"] == {"name": "mine/large", "weights": "none", "width": 2}
    assert found["mine/things"]["data"] == {"format": "mine/things", "train": "here"}


def test_options_alone_are_for_every_component(configs):
    found = configs({"backbone": {"width": 3}, "data": {"val_fraction": 0.5}})
    assert {name: one["backbone"].get("width") for name, one in found.items() if "a" in name} == {
        "mine/small": 3,
        "mine/large": 3,
    }
    assert found["mine/things"]["data"] == {"format": "mine/things", "val_fraction": 0.5}


def test_a_spec_says_what_its_component_is_tried_with(configs, install_plugin):
    what = 'options=Width, example={"width": 2}, example_config={"image": {"size": 96}}'
    install_plugin("wide", PLUGIN.replace("options=Width", what))
    config = subjects("wide/small")[0].config
    assert (config["backbone"]["width"], config["image"]) == (2, {"size": 96})
    config = subjects("wide/small", {"backbone": {"width": 3}, "image": {"size": 32}})[0].config
    assert (config["backbone"]["width"], config["image"]) == (3, {"size": 32})


def test_components_are_checked_on_the_cpu_where_there_is_something_faster(install_plugin, monkeypatch):
    import torch

    from ftengine.precision import pick_device

    install_plugin("mine", PLUGIN)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    (subject,) = subjects("mine/small")
    assert pick_device("auto").type == "cuda"
    assert pick_device(subject.plan.config.train.device).type == "cpu"


def _learnt(subject):
    (task,) = subject.plan.tasks.values()
    return task.field


def test_what_is_learnt_from_digits_and_from_scenes_is_checked_with_both():
    found = {subject.name: subject for subject in subjects("classification")}
    first = found["metric f1 of classification"]
    second = found["metric f1 of classification from labels"]
    assert [_learnt(subject) for subject in (first, second)] == ["label", "labels"]
    assert "metric top_k of classification from labels" not in found, "it says that it takes `label` only"
    assert _learnt(found["task classification from labels"]) == "labels"
    assert _learnt(found["head mlp of classification from labels"]) == "labels"
    named = {"metric f1 of classification": {"train": {"epochs": 1}}, second.name: {"train": {"batch_size": 2}}}
    trains = [
        subject.config["train"]
        for subject in subjects("classification", configs=named)
        if subject.name.startswith("metric f1")
    ]
    assert [(one["epochs"], one["batch_size"]) for one in trains] == [(1, 4), (1, 2)]


def test_with_data_of_its_author_it_is_checked_once():
    found = subjects("classification", {"data": {"limit": 20}})
    assert not any(subject.further for subject in found)
