"""Each policy over steps of an optimizer: what moves in which epoch is what its definition says, and nothing else."""

import pytest
import torch
from torch import nn

from ftengine.audit import Audit
from ftengine.freeze import Freezer, freeze_context
from ftengine.model import Model, StreamBatch
from ftengine.protocols import BackboneContext, Frame, Head, Loss, Progress
from ftengine_freeze import auto, plugin, policies, thawing
from ftengine_timm.backbone import build
from ftengine_timm.plugin import TimmOptions

EPOCHS = 6
STAGES = {"cnn": ["c1", "c2", "c3", "c4", "c5"], "vit": ["c1", "c2", "c3", "c4", "c5", "pooled"]}
"""The stages that have parameters; the CNN's ``pooled`` has none."""


class Linear(Head):
    def __init__(self):
        super().__init__()
        self.fc = nn.LazyLinear(2)

    def forward(self, features, batch):
        return {"logits": self.fc(features["pooled"].flatten(1))}

    def predict(self, output, batch):
        return []


class CrossEntropy(Loss):
    def forward(self, output, batch):
        return {"ce": nn.functional.cross_entropy(output["logits"], batch.targets["label"])}


def make_model(kind):
    torch.manual_seed(0)
    options = TimmOptions(model="test_vit", img_size=32) if kind == "vit" else TimmOptions(model="test_resnet")
    backbone = build(options, BackboneContext())
    model = Model(backbone, {"a": Linear()}, {"a": [CrossEntropy()]}, (0.5,) * 3, (0.25,) * 3)
    model(make_batch(0), ["a"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)  # so that weight decay moves all that may move
    return model


def make_batch(seed):
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return StreamBatch(images, {"a": {"label": torch.arange(4) % 2}}, list("abcd"), [Frame.whole(32, 32)] * 4)


def train(model, policy, epochs=EPOCHS):
    """Two steps an epoch; returns what has moved in each: names of parameters and of buffers."""
    freezer, audit = Freezer(model, policy), Audit()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    moved = []
    for epoch in range(epochs):
        if freezer.apply(Progress(epoch, epochs)):
            audit.update(model, freezer.held(), epoch)
        model.train()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for step in range(2):
            result = model(make_batch(2 * epoch + step), ["a"]).results["a"]
            model.losses["a"][0](result.output, result.batch)["ce"].backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        moved.append({name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])})
    audit.check(model)
    return moved


def expected(model, trains):
    """The names that move where of the backbone's parameters those train that `trains` says, by stage and name."""
    names = {name for name, _ in model.heads.named_parameters(prefix="heads")}
    prefix = "backbone.stages."
    own = {name for name, _ in model.backbone.stages.named_parameters(prefix=prefix[:-1])}
    names |= {name for name in own if trains(*name.removeprefix(prefix).split(".", 1))}
    for inner, module in model.backbone.stages.named_modules(prefix=prefix[:-1]):
        if isinstance(module, nn.BatchNorm2d) and {f"{inner}.weight", f"{inner}.bias"} & names:
            names |= {f"{inner}.{buffer}" for buffer, _ in module.named_buffers()}
    return names


def never(stage, name):
    return False


def always(stage, name):
    return True


def within(*stages):
    return lambda stage, name: stage in stages


def run(kind, factory, options=None):
    model = make_model(kind)
    policy = factory(options or plugin.Options(), freeze_context(model, EPOCHS))
    return model, policy


@pytest.mark.parametrize("kind", ["cnn", "vit"])
@pytest.mark.parametrize(
    ("factory", "options", "trains"),
    [
        (policies.none, None, always),
        (policies.all_stages, None, never),
        (policies.stages, plugin.StagesOptions(through="c3"), within("c4", "c5", "pooled")),
        (
            policies.patterns,
            plugin.PatternsOptions(patterns=("c*.weight",)),
            lambda s, n: s == "pooled" or "weight" not in n,
        ),
        (policies.surgical, plugin.SurgicalOptions(stages=("c2", "c4")), within("c2", "c4")),
        (policies.surgical, plugin.SurgicalOptions(block="first"), within("c1", "c2")),
        (policies.bias_only, None, lambda stage, name: name.split(".")[-1] == "bias"),
    ],
    ids=["none", "all", "stages", "patterns", "surgical", "first", "bias_only"],
)
def test_the_same_moves_in_every_epoch(kind, factory, options, trains):
    model, policy = run(kind, factory, options)
    assert train(model, policy, 2) == [expected(model, trains)] * 2


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_only_normalisation_layers_move(kind):
    model, policy = run(kind, policies.norm_only)
    norms = {
        f"{inner}.{name}"
        for inner, module in model.backbone.stages.named_modules()
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm)
        for name, _ in module.named_parameters()
    }
    assert len(norms) > 10
    assert train(model, policy, 2) == [expected(model, lambda stage, name: f"{stage}.{name}" in norms)] * 2


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_gradual_unfreezing(kind):
    model, policy = run(kind, thawing.gradual, plugin.GradualOptions())
    order = STAGES[kind][::-1]
    # of 5 stages in 6 epochs one an epoch, after the first; of 6, max(1, floor(6i / 7)): two at once in the second
    trained = [order[: epoch + (kind == "vit" and epoch > 0)] for epoch in range(EPOCHS)]
    assert train(model, policy) == [expected(model, within(*stages)) for stages in trained]


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_probing_and_then_fine_tuning(kind):
    model, policy = run(kind, thawing.lp_ft, plugin.LpFtOptions(probe_epochs=2))
    assert train(model, policy) == [expected(model, never)] * 2 + [expected(model, always)] * 4


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_the_chosen_stages_move_once_they_are_chosen(kind):
    model, policy = run(kind, auto.auto, plugin.AutoOptions(train=2))
    policy.measured({stage: float(stage in ("c2", "c5")) for stage in STAGES[kind]})
    assert train(model, policy, 2) == [expected(model, within("c2", "c5"))] * 2


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (thawing.gradual, plugin.GradualOptions()),
        (thawing.gradual, plugin.GradualOptions(epochs_per_stage=1, until="c4")),
        (thawing.lp_ft, plugin.LpFtOptions()),
    ],
    ids=["gradual", "until", "lp_ft"],
)
def test_a_run_that_begins_in_the_middle_freezes_as_one_that_came_there(factory, options):
    model, policy = run("cnn", factory, options)
    freezer = Freezer(model, policy)
    for epoch in range(EPOCHS):
        freezer.apply(Progress(epoch, EPOCHS))
        other, same = run("cnn", factory, options)
        begun = Freezer(other, same)
        begun.apply(Progress(epoch, EPOCHS))
        assert begun.held().keys() == freezer.held().keys()
        since = [
            {name: f.since.get(id(parameter)) for name, parameter in m.named_parameters()}
            for f, m in ((freezer, model), (begun, other))
        ]
        assert since[0] == since[1]
