"""Relative gradient norms by stage: the right numbers, and a model that is left as it was."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import Policy, TinyBackbone, TinyData, make_model
from torch import nn

from ftengine.config import ImageConfig
from ftengine.data import Split
from ftengine.dist import World
from ftengine.errors import TrainingError
from ftengine.freeze import Freezer
from ftengine.loading import LoaderSettings, batches
from ftengine.measure import relative_gradients
from ftengine.micro_batch import MicroBatches
from ftengine.order import TrainOrder
from ftengine.protocols import Progress
from ftengine.protocols.task import stack

PART = SimpleNamespace(component=SimpleNamespace(name="ce", plugin="tiny"))


def make_run(
    model=None, tasks=("a",), step=0, accumulate=1, batch_size=4, seed=0, weights=None, mixing=None, name="fp32"
):
    """As much of a run as is measured: a stream for each task, which has it alone."""
    model = model or make_model(tasks)
    config = SimpleNamespace(seed=seed, batch=batch_size, accumulate=accumulate)
    own = {task: SimpleNamespace(losses=[(PART, 1.0)], weight=(weights or {}).get(task, 1.0)) for task in tasks}
    plan = SimpleNamespace(config=SimpleNamespace(train=config), tasks=own, joint=len(tasks) > 1)

    def encode(target):
        return {"label": np.int64(target["label"])}

    def split(task):
        image = ImageConfig.model_validate({"size": 8, "fit": "crop"})
        return Split(
            TinyData(10), {task: encode}, {task: stack}, image, frozenset({"label"}), None, seed, task, training=True
        )

    streams = {task: SimpleNamespace(train=split(task), tasks=(task,)) for task in tasks}
    device = torch.device("cpu")
    autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16, enabled=name == "bf16")  # noqa: E731
    precision = SimpleNamespace(device=device, autocast=autocast, name=name)
    return SimpleNamespace(
        plan=plan,
        model=model,
        streams=streams,
        precision=precision,
        loader=LoaderSettings(),
        step=step,
        mixing=mixing,
        micro=MicroBatches(accumulate, batch_size),
        world=World(),
    )


def by_hand(model, batches, accumulate=1):
    """Of one task, from the definition: the norm of the mean gradient over that of the weights, of what can train."""
    named = {name: p for name, p in model.backbone.stages.named_parameters() if p.requires_grad}
    total = dict.fromkeys(named, 0.0)
    model.train()
    for batch in batches:
        for part in batch.split(accumulate):
            result = model(part, ["a"]).results["a"]
            loss = model.losses["a"][0](result.output, result.batch)["ce"]
            gradients = torch.autograd.grad(loss, list(named.values()))
            for name, gradient in zip(named, gradients, strict=True):
                total[name] = total[name] + gradient / (len(batches) * accumulate)

    def norm(stage, values):
        own = [value.detach().double() for name, value in values.items() if name.split(".")[0] == stage]
        return sum(float((value**2).sum()) for value in own) ** 0.5

    return {stage: norm(stage, total) / norm(stage, named) for stage in {name.split(".")[0] for name in named}}


def first_batches(run, count):
    order = TrainOrder(10, run.plan.config.train.batch, run.plan.config.train.seed, "a", run.step, run.step + count)
    return list(batches(run.streams["a"].train, order, run.loader))


@pytest.mark.parametrize(("count", "step", "accumulate"), [(1, 0, 1), (3, 0, 1), (3, 1, 2), (5, 7, 1)])
def test_it_is_the_norm_of_the_mean_gradient_over_that_of_the_weights(count, step, accumulate):
    run = make_run(step=step, accumulate=accumulate)
    measured = relative_gradients(run, count)
    expected = by_hand(make_model(), first_batches(run, count), accumulate)
    assert measured == pytest.approx(expected, rel=1e-4)
    assert list(measured) == ["c1", "c2"]


def test_the_mean_is_of_gradients_not_of_their_norms():
    run = make_run()
    single = [relative_gradients(make_run(step=step), 1)["c1"] for step in range(4)]
    assert relative_gradients(run, 4)["c1"] < 0.99 * sum(single) / 4


def test_every_stream_counts_with_its_task_s_weight():
    def measure(**weights):
        return relative_gradients(make_run(tasks=("a", "b"), weights=weights), 2)

    both = measure(a=2.0, b=2.0)
    assert both == pytest.approx({stage: 2 * value for stage, value in measure().items()}, rel=1e-4)
    assert measure(a=1.0, b=0.0) != pytest.approx(measure(a=0.0, b=1.0), rel=1e-2)


def test_batches_are_mixed_as_in_training():
    def blacken(part, tasks):
        assert tasks == ("a",)
        return part.map(lambda tensor: torch.zeros_like(tensor))

    assert relative_gradients(make_run(mixing=blacken), 2) != pytest.approx(relative_gradients(make_run(), 2), rel=1e-2)


class Drawing(nn.Module):
    """Is random in training, counts what it saw, and puts a new tensor in place of a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("last", torch.zeros(4), persistent=False)

    def forward(self, x):
        self.seen += 1
        self.last = x.detach().mean((0, 2, 3))
        return nn.functional.dropout(x, 0.5, self.training)


def drawing_model():
    torch.manual_seed(0)
    backbone = TinyBackbone()
    backbone.stages["c1"].add_module("drawing", Drawing())
    return make_model(backbone=backbone)


def test_the_same_step_gives_the_same_numbers_and_another_seed_others():
    def measure(seed=0):
        return relative_gradients(make_run(drawing_model(), seed=seed), 3)

    first = measure()
    torch.manual_seed(99)
    assert measure() == first
    assert measure(1) != first


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_bit_for_bit_as_it_was(training, fails):
    model = drawing_model()
    Freezer(model, Policy({"c1", "c2.1.weight", "c2.1.bias"})).apply(Progress(0, 1))
    model.train(training)
    model.backbone.stages["c2"][2].train(not training)
    norms = model.frozen_norms
    buffers = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}
    parameters = {name: parameter.clone() for name, parameter in model.named_parameters()}
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    modes = [module.training for module in model.modules()]

    def mixing(part, tasks):
        if fails and model.get_buffer("backbone.stages.c1.drawing.seen") == 2:
            raise RuntimeError("broken")
        return part

    run = make_run(model, mixing=mixing)
    if fails:
        with pytest.raises(RuntimeError, match="broken"):
            relative_gradients(run, 3)
    else:
        assert min(relative_gradients(run, 3).values()) > 0
    assert len(norms) == 2
    assert model.frozen_norms is norms
    assert [module.training for module in model.modules()] == modes
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(parameter, parameters[name]) for name, parameter in model.named_parameters())
    after = dict(model.named_buffers())
    assert after.keys() == buffers.keys()
    for name, (buffer, values) in buffers.items():
        assert after[name] is buffer
        assert torch.equal(buffer, values), name


def test_what_is_frozen_is_measured_as_if_it_trained():
    model = make_model()
    Freezer(model, Policy({"c1", "c2"})).apply(Progress(0, 1))
    assert relative_gradients(make_run(model), 2) == relative_gradients(make_run(), 2)


def test_what_can_never_train_is_left_out():
    torch.manual_seed(0)
    backbone = TinyBackbone()
    backbone.stages["c1"].requires_grad_(False)
    backbone.stages["c2"][0].weight.requires_grad_(False)
    model = make_model(backbone=backbone)
    run = make_run(model)
    measured = relative_gradients(run, 2)
    assert not any(parameter.requires_grad for parameter in backbone.stages["c1"].parameters())
    assert measured == pytest.approx(by_hand(model, first_batches(run, 2)), rel=1e-4)
    assert measured.keys() == {"c2"}


def test_weights_that_are_all_zero_have_an_infinite_one_or_none():
    model = make_model()
    nn.init.zeros_(model.backbone.stages["c1"][0].weight)
    nn.init.zeros_(model.backbone.stages["c1"][1].weight)
    assert relative_gradients(make_run(model), 1)["c1"] == 0
    model = make_model()
    for parameter in model.backbone.stages["c2"].parameters():
        nn.init.zeros_(parameter)
    model.backbone.stages["c2"][2] = nn.Identity()
    assert relative_gradients(make_run(model), 1)["c2"] == float("inf")


def test_a_gradient_that_is_not_finite_is_an_error():
    model = make_model()
    nn.init.constant_(model.backbone.stages["c2"][0].weight, float("nan"))
    with pytest.raises(TrainingError, match=r"gradients of 2 batches.*before step 0, are not\s*finite in: c1, c2"):
        relative_gradients(make_run(model), 2)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_is_near_single_precision():
    single = relative_gradients(make_run(), 4)
    assert relative_gradients(make_run(name="bf16"), 4) == pytest.approx(single, rel=0.1)
    assert relative_gradients(make_run(name="bf16"), 4) != single
    assert relative_gradients(make_run(name="fp16"), 4) == single


def test_one_image_a_part_where_a_norm_would_see_one_value():
    model = make_model()
    model.backbone.stages["c2"].add_module("pool", nn.AdaptiveAvgPool2d(1))
    norm = nn.BatchNorm2d(6)
    model.backbone.stages["c2"].add_module("single", norm)
    model.single_position_norms = [norm]
    measured = relative_gradients(make_run(model, batch_size=2, accumulate=2), 2)
    assert all(value > 0 for value in measured.values())
    assert model.frozen_norms == []
