"""The smallest backbone, head, loss, task and dataset that satisfy the contracts, for tests of the engine."""

import numpy as np
import torch
from torch import nn

from ftengine.model import Model, StreamBatch
from ftengine.protocols import Backbone, Dataset, Frame, FreezePolicy, Head, Loss


class TinyBackbone(Backbone):
    """Two stages with BatchNorm, 4 and 6 channels."""

    def __init__(self, **options):
        def stage(inside, outside):
            return nn.Sequential(nn.Conv2d(inside, outside, 3, 2, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())

        super().__init__({"c1": stage(3, 4), "c2": stage(4, 6)}, {"c1": 4, "c2": 6}, {"c1": 2, "c2": 4}, **options)


class TinyHead(Head):
    def __init__(self, channels=6, classes=2):
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, features, batch):
        return {"logits": self.fc(list(features.values())[-1].mean((2, 3)))}

    def predict(self, output, batch):
        return [{"scores": row} for row in output["logits"].softmax(-1).float().cpu()]


class TinyLoss(Loss):
    """Cross-entropy with a temperature that is learned, if asked for."""

    def __init__(self, learned=False):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(())) if learned else 1.0

    def forward(self, output, batch):
        return {"ce": nn.functional.cross_entropy(output["logits"] * self.scale, batch.targets["label"])}


class Policy(FreezePolicy):
    """Freezes what the list says for each epoch."""

    def __init__(self, *by_epoch):
        self.by_epoch = by_epoch

    def frozen(self, stages, progress):
        return set(self.by_epoch[min(progress.epoch, len(self.by_epoch) - 1)])


class TinyData(Dataset):
    """`length` images of one grey each; the label is the index's parity."""

    names = {"label": ("even", "odd")}  # noqa: RUF012

    def __init__(self, length=10, size=(8, 8)):
        self.length = length
        self.shape = size

    def __len__(self):
        return self.length

    def target(self, index):
        return {"label": index % 2}

    def image(self, index):
        return np.full((*self.shape, 3), index % 256, np.uint8)

    def sample_id(self, index):
        return f"tiny-{index}"


def make_model(tasks=("a",), learned=(), backbone=None):
    torch.manual_seed(0)
    return Model(
        backbone or TinyBackbone(),
        {task: TinyHead() for task in tasks},
        {task: [TinyLoss(task in learned)] for task in tasks},
        (0.5, 0.5, 0.5),
        (0.25, 0.25, 0.25),
    )


def make_batch(size=4, tasks=("a",), seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 8, 8, 3), dtype=torch.uint8, generator=generator)
    targets = {task: {"label": torch.arange(size) % 2} for task in tasks}
    return StreamBatch(images, targets, [f"s{i}" for i in range(size)], [Frame.whole(8, 8)] * size)


def loss_of(model, batch, tasks=("a",)):
    results = model(batch, tasks).results
    return sum(model.losses[task][0](r.output, r.batch)["ce"] for task, r in results.items())
