"""The optimizers' names, defaults and arguments are torch's."""

import inspect

import pytest
import torch
from pydantic import ValidationError

from ftengine.optimizers import OPTIMIZERS

# Where a default differs from torch's on purpose.
DEVIATIONS = {"sgd": {"lr": (0.01, 0.001), "momentum": (0.9, 0)}}

# How torch computes, not what: left to torch.
IMPLEMENTATION = {"params", "foreach", "maximize", "capturable", "differentiable", "fused"}

# Arguments that are left out: Adam with decoupled weight decay has a name of its own, adamw.
WITHOUT = {"adam": {"decoupled_weight_decay"}}

LEFT_OUT = {"LBFGS", "SparseAdam", "Muon", "Optimizer"}


def signature(model):
    parameters = inspect.signature(getattr(torch.optim, model.torch_name)).parameters
    return {name: p.default for name, p in parameters.items() if name not in IMPLEMENTATION}


def value(default):
    return default.item() if isinstance(default, torch.Tensor) else default


def test_every_optimizer_of_torch_is_offered_but_for_the_listed_ones():
    classes = {name for name, item in vars(torch.optim).items() if inspect.isclass(item)}
    assert {model.torch_name for model in OPTIMIZERS.values()} == classes - LEFT_OUT


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_arguments_and_defaults_are_torch_s(name):
    model = OPTIMIZERS[name]
    torchs = signature(model)
    own = model().arguments()
    assert set(own) == set(torchs) - WITHOUT.get(name, set())
    differing = {key: (own[key], value(torchs[key])) for key in own if own[key] != value(torchs[key])}
    assert differing == DEVIATIONS.get(name, {})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_names_are_lower_case_and_every_option_is_described(name):
    model = OPTIMIZERS[name]
    assert name == model.torch_name.lower()
    assert all(field.description for field in model.model_fields.values())


def test_values_that_torch_refuses_are_refused_without_it():
    for name, options in [
        ("sgd", {"lr": 0}),
        ("sgd", {"nesterov": True, "momentum": 0}),
        ("sgd", {"nesterov": True, "dampening": 0.1}),
        ("adam", {"betas": (0.9, 1.0)}),
        ("adamw", {"weight_decay": -1}),
        ("rprop", {"weight_decay": 0.1}),
        ("rprop", {"etas": (1.1, 1.2)}),
        ("adam", {"lr": float("inf")}),
        ("adam", {"eps": float("nan")}),
    ]:
        with pytest.raises(ValidationError):
            OPTIMIZERS[name](**options)
