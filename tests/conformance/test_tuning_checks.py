"""Regularizers, adapters and strategies that are wrong in one way, and what the kit says of each."""

import pytest

SMALL = {"backbone": {"name": "acme/tiny", "weights": "none"}, "image": {"size": 16}, "data": {"limit": 16}}

pytestmark = pytest.mark.usefixtures("third_party")


def own_results(subject, prefixes):
    """What the checks made for its kind say of a component."""
    from ftengine.testing.kit import checks_for, run_check

    return [run_check(one, subject) for one in checks_for(subject.kind) if one.name.startswith(prefixes)]


# --- regularizers ----------------------------------------------------------------------------------------------------

REGULARIZER = """
import random
import torch
from torch import nn
from ftengine.protocols import Regularizer

class Right(Regularizer):
    def __init__(self, context):
        super().__init__()
        self.start = {name: value.clone() for name, value in context.start.items()}
    def of_weights(self, parameters):
        return {"far": sum((p - self.start[name]).square().sum() for name, p in parameters.items())}
    def of_features(self, images, features):
        return {"large": features["c3"].square().mean()}

class OfBackbone(Right):
    def of_weights(self, parameters):
        own = [p.square().sum() for name, p in parameters.items() if not name.startswith("head.")]
        return {"size": sum(own)} if own else {}

"""


def regularizer(body, base="Right"):
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"{REGULARIZER}class Thing({base}):\n{lines}\n\ndef thing(options, context):\n    return Thing(context)\n"


@pytest.mark.parametrize(("base", "body"), [("Right", "pass"), ("OfBackbone", "backbone_only = True")])
def test_a_right_regularizer_passes_every_check(component, base, body):
    subject = component("regularizer", regularizer(body, base), changes=SMALL)
    results = own_results(subject, ("regularizer_", "backbone_only"))
    assert len(results) == 4
    assert [one.text for one in results if one.status != "ok"] == []


WRONG_REGULARIZERS = {
    "nothing": (
        "regularizer_terms",
        "def of_weights(self, parameters):\n    return {}\ndef of_features(self, images, features):\n    return {}",
        "a term of the weights or of the features before the first step",
        "none",
    ),
    "a number": (
        "regularizer_terms",
        "def of_weights(self, parameters):\n    return {'far': 1.5}",
        "that far (of_weights) is a scalar tensor of floats",
        "a float",
    ),
    "one for each image": (
        "regularizer_terms",
        "def of_features(self, images, features):\n    return {'large': features['c3'].square().mean((1, 2, 3))}",
        "that large (of_features) is a scalar tensor of floats",
        "of shape [4]",
    ),
    "negative": (
        "regularizer_terms",
        "def of_features(self, images, features):\n    return {'large': -1 - features['c3'].square().mean()}",
        "that large (of_features) is finite and at least 0 before the first step",
        "-1.",
    ),
    "a gradient that is not finite at the start": (
        "regularizer_terms",
        "def of_weights(self, parameters):\n"
        "    return {'far': sum((p - self.start[name]).norm().sqrt() for name, p in parameters.items())}",
        "finite gradients of far (of_weights) before the first step",
        "others at ",
    ),
    "detached": (
        "regularizer_terms",
        "def of_weights(self, parameters):\n    return {'far': parameters['c1.0.weight'].detach().square().sum()}",
        "a gradient of far (of_weights) before the first step, where everything trains",
        "none",
    ),
    "a gradient of the images": (
        "regularizer_terms",
        "def of_features(self, images, features):\n    return {'large': images.requires_grad_().square().mean()}",
        "that the gradient of large (of_features) reaches a parameter that trains",
        "that it reaches none",
    ),
    "a mean of what it has seen": (
        "regularizer_is_stateless",
        "seen = 0.0\ndef of_features(self, images, features):\n"
        "    self.seen = 0.9 * self.seen + 0.1 * features['c3'].detach().mean()\n"
        "    return {'large': (features['c3'] - self.seen).square().mean()}",
        "as before, for the same weights and batch, asked again",
        "0.",
    ),
    "random when it is made": (
        "regularizer_is_stateless",
        "def __init__(self, context):\n    super().__init__(context)\n    self.factor = random.random()\n"
        "def of_features(self, images, features):\n    return {'large': self.factor * features['c3'].square().mean()}",
        "as before, for the same weights and batch, made anew",
        "0.",
    ),
    "names that change": (
        "regularizer_is_stateless",
        "seen = 0\ndef of_features(self, images, features):\n    self.seen += 1\n"
        "    return {f'large{self.seen}': features['c3'].square().mean()}",
        "the terms far (of_weights), large4 (of_features), asked again",
        "far (of_weights), large5 (of_features)",
    ),
    "parameters of its own": (
        "regularizer_leaves_the_model",
        "def __init__(self, context):\n    super().__init__(context)\n    self.factor = nn.Parameter(torch.ones(()))",
        "no parameters of its own that train",
        "factor",
    ),
    "writes into the weights": (
        "regularizer_leaves_the_model",
        "@torch.no_grad()\ndef shrink(self, parameters):\n    [p.mul_(0.99) for p in parameters.values()]\n"
        "def of_weights(self, parameters):\n    self.shrink(parameters)\n    return super().of_weights(parameters)",
        "that the model is as before",
        "that it has changed backbone.stages.c1.0.bias, backbone.stages.c1.0.weight, ",
    ),
    "says that it is of the backbone": (
        "backbone_only_is_true",
        "backbone_only = True",
        "backbone_only = False, since with a frozen backbone it still acts on the heads",
        "it acts by far (of_weights)",
    ),
    "does not say that it is of the backbone": (
        "backbone_only_is_true",
        "def of_weights(self, parameters):\n    return {}",
        "backbone_only = True, since with a frozen backbone it does nothing",
        "False",
    ),
}


@pytest.mark.parametrize("name", WRONG_REGULARIZERS)
def test_a_regularizer_that_is_wrong_in_one_way_is_told_so(result, name):
    check, body, expected, said = WRONG_REGULARIZERS[name]
    answer = result(check, "regularizer", regularizer(body), changes=SMALL)
    assert answer.status == "failed"
    assert expected in answer.expected
    assert said in answer.found


def test_a_regularizer_that_adds_to_the_model_is_told_so(result):
    # It has the model only while it is asked: what it puts there is in every checkpoint from then on.
    body = (
        "def of_features(self, images, features):\n"
        "    import gc\n"
        "    from ftengine.model import Model\n"
        "    for model in [one for one in gc.get_objects() if isinstance(one, Model)]:\n"
        "        model.register_buffer('seen', torch.zeros(()))\n"
        "    return super().of_features(images, features)"
    )
    answer = result("regularizer_leaves_the_model", "regularizer", regularizer(body), changes=SMALL)
    assert answer.status == "failed"
    assert answer.expected == "the model's state as it is without it"
    assert answer.found == "a difference in seen"


# --- adapters --------------------------------------------------------------------------------------------------------

ADAPTER = """
import torch
from torch import nn
from ftengine.protocols import Adapter

class Scaled(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.scale = nn.Parameter(torch.ones(layer.out_channels))
    def forward(self, x):
        return self.layer(x) * self.scale[:, None, None]

class Right(Adapter):
    def apply(self, backbone):
        backbone.requires_grad_(False)
        for stage in backbone.stages.values():
            stage[0] = Scaled(stage[0])
    @torch.no_grad()
    def merge(self, backbone):
        for stage in backbone.stages.values():
            layer, scale = stage[0].layer, stage[0].scale
            layer.weight.mul_(scale[:, None, None, None])
            layer.bias.mul_(scale)
            stage[0] = layer

"""


def adapter(body):
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"{ADAPTER}class Thing(Right):\n{lines}\n\ndef thing(options, context):\n    return Thing()\n"


def test_a_right_adapter_passes_every_check(component):
    results = own_results(component("adapter", adapter("pass"), changes=SMALL), "adapter_")
    assert len(results) == 4
    assert [one.text for one in results if one.status != "ok"] == []


AFTER = "def apply(self, backbone):\n    super().apply(backbone)\n"
MERGE = "@torch.no_grad()\ndef merge(self, backbone):\n    super().merge(backbone)\n"
WRONG_ADAPTERS = {
    "does not start as the backbone": (
        "adapter_starts_from_the_backbone",
        AFTER + "    nn.init.constant_(backbone.stages['c2'][0].scale, 1.5)",
        "the features of the backbone before it was applied",
        "c2 apart by up to ",
    ),
    "trains the backbone, too": (
        "adapter_trains_its_own",
        AFTER + "    backbone.stages['c3'][0].layer.weight.requires_grad_(True)",
        "that all 6,144 numbers of the backbone's own are there and do not train",
        "1,536 that do not; stages.c1.0.scale, stages.c2.0.scale, stages.c3.0.layer.weight, … (+1) train",
    ),
    "trains nothing": (
        "adapter_trains_its_own",
        AFTER + "    backbone.requires_grad_(False)",
        "new parameters of fewer than the backbone's 6,144 numbers",
        "0",
    ),
    "trains more than the backbone has": (
        "adapter_trains_its_own",
        AFTER + "    backbone.stages['c1'][0].more = nn.Parameter(torch.zeros(100, 100))",
        "new parameters of fewer than the backbone's 6,144 numbers",
        "10,056",
    ),
    "puts its parameters beside the stages": (
        "adapter_trains_its_own",
        AFTER + "    backbone.scale = nn.Parameter(torch.ones(3))",
        "that all parameters are in the backbone's stages",
        "outside: scale",
    ),
    "has a parameter that nobody reads": (
        "adapter_trains_its_own",
        AFTER + "    backbone.stages['c1'][0].more = nn.Parameter(torch.zeros(3))",
        "a gradient at every new parameter",
        "none at stages.c1.0.more",
    ),
    "has no effect": (
        "adapter_merges",
        "def apply(self, backbone):\n    backbone.requires_grad_(False)\n"
        "    backbone.stages['c1'].more = nn.Parameter(torch.zeros(3))",
        "other features with other values of the new parameters",
        "the same features",
    ),
    "leaves modules behind": (
        "adapter_merges",
        MERGE + "    backbone.stages['c1'][0] = nn.Sequential(backbone.stages['c1'][0])",
        "the modules of before",
        "2 others: stages.c1.0: Sequential, not Conv2d; stages.c1.0.0: Conv2d, not None",
    ),
    "leaves tensors behind": (
        "adapter_merges",
        MERGE + "    backbone.stages['c1'][0].register_buffer('scale', torch.ones(3))",
        "the parameters and buffers of before",
        "1 others: stages.c1.0.scale: [3], not None",
    ),
    "merges something else": (
        "adapter_merges",
        MERGE + "    backbone.stages['c3'][0].bias.zero_()",
        "the features of the adapted backbone",
        "c3 apart by up to ",
    ),
    "has other names every time": (
        "adapter_round_trip",
        "count = 0\n" + AFTER + "    Right.count = getattr(Right, 'count', 0) + 1\n"
        "    backbone.stages['c1'][0].register_buffer(f'made{Right.count}', torch.zeros(()))",
        "the same names in two adapted backbones",
        "stages.c1.0.made2 only in the second, stages.c1.0.made1 only in the first",
    ),
    "has a value that is not saved": (
        "adapter_round_trip",
        AFTER + "    for stage in backbone.stages.values():\n"
        "        stage[0].register_buffer('factor', torch.rand(()), persistent=False)\n"
        "        stage[0].forward = self.forward_of(stage[0])\n"
        "def forward_of(self, one):\n"
        "    return lambda x: one.layer(x) * (1 + one.factor * (one.scale - 1))[:, None, None]",
        "the same features at c1, bit for bit",
        "elements, by up to ",
    ),
}


@pytest.mark.parametrize("name", WRONG_ADAPTERS)
def test_an_adapter_that_is_wrong_in_one_way_is_told_so(result, name):
    check, body, expected, said = WRONG_ADAPTERS[name]
    answer = result(check, "adapter", adapter(body), changes=SMALL)
    assert answer.status == "failed", answer
    assert expected in answer.expected
    assert said in answer.found


# --- strategies ------------------------------------------------------------------------------------------------------

RIGHT_STRATEGY = (
    'when="now", settings={"freeze": "lp_ft", "regularizers": ["l1"], "train": {"ema": 0.9}, '
    '"optimizer": {"name": "adamw", "lr": 0.002, "betas": [0.8, 0.9]}, "schedule": {"name": "cosine"}}'
)


def test_a_right_strategy_passes_every_check(component):
    results = own_results(component("strategy", more=RIGHT_STRATEGY, changes=SMALL), "strategy_")
    assert len(results) == 2
    assert [one.text for one in results if one.status != "ok"] == []


def test_settings_that_no_config_can_have_are_told(result):
    more = 'settings={"optimizer": {"name": "sgd", "momentun": 0.5}}'
    answer = result("strategy_takes_effect", "strategy", more=more, changes=SMALL)
    assert answer.status == "failed"
    assert answer.expected == "settings that a config can have"
    assert "momentun" in answer.found
    assert "momentum" in answer.found


def test_a_strategy_must_come_into_effect(result):
    changes = {**SMALL, "optimizer": {"lr": 0.5}}
    answer = result("strategy_takes_effect", "strategy", more='settings={"optimizer": {"lr": 0.25}}', changes=changes)
    assert answer.status == "failed"
    assert answer.expected.startswith("`optimizer` as it sets it: {'name': 'sgd', ")
    assert "'lr': 0.25" in answer.expected
    assert "'lr': 0.5" in answer.found


def test_a_strategy_must_train(result):
    # Steps too small to change any number that is not 0, of which there are none without norms and the head's bias.
    model = {"backbone": {**SMALL["backbone"], "norm": "none"}, "head": {"name": "acme/prototypes"}}
    more = 'settings={"optimizer": {"lr": 1e-30}}'
    answer = result("strategy_trains", "strategy", more=more, changes={**SMALL, **model})
    assert answer.status == "failed"
    assert answer.expected == "that 2 steps move a weight"
    assert answer.found == "that none has moved"


def test_the_losses_of_a_strategy_must_stay_finite(result):
    # Weights of 1e35 after the first step, and no norm that would make anything finite of what they give in the second.
    more = 'settings={"optimizer": {"lr": 1e6, "weight_decay": 1e30}}'
    changes = {**SMALL, "backbone": {**SMALL["backbone"], "norm": "none"}}
    answer = result("strategy_trains", "strategy", more=more, changes=changes)
    assert answer.status == "failed"
    assert answer.expected == "2 steps with finite losses"
    assert "not finite" in answer.found
