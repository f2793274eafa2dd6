"""What the plugin offers, on the built-in backbones."""

import importlib

import pytest
import torch

from ftengine.host import Host
from ftengine.plugin import Options
from ftengine.protocols import BackboneContext, Regularizer, RegularizerContext
from ftengine_regularizers import plugin

SPECS = {spec.name: spec for spec in plugin.register_regularizers()}


def factory(spec):
    module, _, name = spec.factory.partition(":")
    return getattr(importlib.import_module(module), name)


def test_the_names_are_found_by_the_host():
    assert list(SPECS) == ["l2_sp", "l1", "feature_distill"]
    host = Host.discover()
    for name in SPECS:
        assert host.find("regularizer", name).plugin == "regularizers"


@pytest.mark.usefixtures("narrow_vit")
@pytest.mark.parametrize("architecture", ["resnet18", "vit_b_16"])
def test_every_factory_makes_its_kind_for_a_cnn_and_a_transformer(architecture):
    spec = Host.discover().find("backbone", architecture).spec
    backbone = factory(spec)(spec.options(), BackboneContext()).eval()
    weights = dict(backbone.stages.named_parameters())
    start = {name: value.detach().clone() for name, value in weights.items()}
    context = RegularizerContext(start, lambda: backbone, backbone.levels)
    images = torch.zeros(1, 3, 224, 224)
    features = backbone(images)
    values = {}
    for name, spec in SPECS.items():
        assert issubclass(spec.options, Options)
        made = factory(spec)(spec.options(), context)
        assert isinstance(made, Regularizer)
        terms = made.of_weights(weights) | made.of_features(images, features)
        assert terms.keys() == {name}
        assert terms[name].requires_grad
        values[name] = float(terms[name].detach())
    assert values["l2_sp"] == 0
    assert values["feature_distill"] < 1e-9, "attention without gradients is another kernel"
    assert values["l1"] == pytest.approx(1e-5 * sum(float(value.abs().sum()) for value in start.values()), rel=1e-3)
