"""The engine trains as a hand-written loop does: from the same start, on the same batches, to the same weights."""

import io
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18

from ftengine.document import Document
from ftengine.loading import LoaderSettings, batches
from ftengine.loop import fit
from ftengine.order import TrainOrder
from ftengine.resolve import resolve
from ftengine.run import assemble
from ftengine.signals import Signals

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255
LR, BATCH, EPOCHS = 0.05, 16, 2


def config(freeze):
    return {
        "task": "classification",
        "data": {"format": "digits", "limit": 64, "val_fraction": 0.25},
        "image": {"size": 32},
        "backbone": {"name": "resnet18", "weights": "none"},
        "freeze": freeze,
        "augment": [{"name": "Affine", "rotate": [-15, 15], "p": 1.0}],
        "optimizer": {"name": "sgd", "lr": LR, "momentum": 0.9, "weight_decay": 1e-3},
        "train": {"epochs": EPOCHS, "batch_size": BATCH, "precision": "fp32", "channels_last": False},
    }


def published_state(run):
    """The run's model under torchvision's names."""
    own = run.model.backbone.state_dict()
    state = {theirs: own[ours].clone() for ours, theirs in run.model.backbone.published.items()}
    for name, tensor in run.model.heads["classification"].state_dict().items():
        state[f"fc.{name.rpartition('.')[2]}"] = tensor.clone()
    return state


def hand_written(run, state, frozen):
    """What the run does, without the engine's model, loss, optimizer, schedule, freezing and loop."""
    model = resnet18(num_classes=10)
    model.load_state_dict(state)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=LR, momentum=0.9, weight_decay=1e-3)
    split = run.streams["data"].train
    steps = EPOCHS * (len(split) // BATCH)
    model.train()
    for name, module in model.named_modules():
        if name.startswith(frozen) and isinstance(module, nn.BatchNorm2d):
            module.eval()
    feed = batches(split, TrainOrder(len(split), BATCH, 0, "data", 0, steps), LoaderSettings())
    for step, batch in enumerate(feed):
        for group in optimizer.param_groups:
            group["lr"] = LR * (1 + math.cos(math.pi * step / steps)) / 2
        images = ((batch.images.permute(0, 3, 1, 2).float() - MEAN) / STD).contiguous()
        loss = F.cross_entropy(model(images), batch.targets["classification"]["label"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        ("none", ()),
        pytest.param("all", ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"), marks=pytest.mark.slow),
        pytest.param({"name": "stages", "through": "c3"}, ("conv1", "bn1", "layer1", "layer2"), marks=pytest.mark.slow),
    ],
    ids=["everything", "the head alone", "from c4 on"],
)
def test_the_weights_are_those_of_a_hand_written_loop(tmp_path: Path, freeze, frozen):
    console = Console(file=io.StringIO())
    run = assemble(resolve(Document(config(freeze))), tmp_path, console, Signals(), resume=False)
    start = published_state(run)
    expected = hand_written(run, start, frozen)
    fit(run)
    made = published_state(run)
    assert made.keys() == expected.keys()
    for name, tensor in made.items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=1e-5, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )
        if name.startswith(frozen) and frozen:
            assert torch.equal(tensor, start[name]), f"{name} moved"
    moved = [name for name in made if not torch.equal(made[name], start[name])]
    assert {"fc.weight", "fc.bias"} <= set(moved)
    assert len(moved) == 2 or not frozen or "layer4.1.conv2.weight" in moved
