"""The components together, from a dataset's targets to metrics and rows, without a backbone."""

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from ftengine.protocols import Batch, Dataset, Frame, HeadContext, LossContext, MetricContext, TaskContext
from ftengine_classification import heads, losses, metrics, options
from ftengine_classification.task import Classification

NAMES = ("ants", "bees", "cats")


class Points(Dataset):
    """Targets whose features are the one-hot classes themselves, with noise."""

    def __init__(self, field, names, count, seed):
        rng = np.random.default_rng(seed)
        self.field, self.names = field, {field: names}
        # The first samples make sure that every class occurs.
        if field == "label":
            self.values = np.concatenate([np.arange(3), rng.integers(0, 3, count - 3)])
            present = np.eye(3)[self.values]
        else:
            self.values = present = np.concatenate([np.eye(3), rng.integers(0, 2, (count - 3, 3))])
        # Feature k belongs to the class called NAMES[k], whatever index this split gives it.
        present = present[:, [names.index(name) for name in NAMES]]
        self.features = torch.tensor(present + rng.normal(0, 0.1, (count, 3)), dtype=torch.float32)[:, :, None, None]

    def __len__(self):
        return len(self.values)

    def target(self, index):
        value = self.values[index]
        return {self.field: int(value) if self.field == "label" else value.astype(np.float32)}

    def image(self, index):
        raise AssertionError("not needed here")

    def sample_id(self, index):
        return str(index)


def batch_of(task, data, place):
    encode = task.encoder(data, place)
    targets = default_collate(
        [{k: torch.as_tensor(v) for k, v in encode(data.target(i)).items()} for i in range(len(data))]
    )
    ids = [data.sample_id(i) for i in range(len(data))]
    return Batch(
        images=torch.zeros(len(data), 3, 1, 1), targets=targets, ids=ids, frames=[Frame.whole(1, 1)] * len(data)
    )


@pytest.mark.parametrize(
    ("field", "make_loss"),
    [
        ("label", lambda context: losses.CrossEntropy(options.CrossEntropyOptions(class_weights="balanced"), context)),
        ("label", lambda context: losses.Focal(options.FocalOptions(), context)),
        ("labels", lambda context: losses.Focal(options.FocalOptions(), context)),
        (
            "labels",
            lambda context: losses.BinaryCrossEntropy(
                options.BinaryCrossEntropyOptions(pos_weight="balanced"), context
            ),
        ),
    ],
    ids=["cross_entropy", "focal", "sigmoid_focal", "binary_cross_entropy"],
)
@pytest.mark.parametrize("head_name", ["linear", "mlp"])
def test_separable_classes_are_learned(field, make_loss, head_name):
    torch.manual_seed(0)
    train = Points(field, NAMES, 60, seed=0)
    # The validation split names its classes in another order.
    val = Points(field, NAMES[::-1], 40, seed=1)
    task = Classification(options.TaskOptions(), TaskContext(field=field))
    task.fit(train)
    context = HeadContext(channels={"c5": 3}, strides={"c5": 32}, task=task)
    head_options = {"linear": options.LinearOptions(), "mlp": options.MlpOptions(hidden=[16])}[head_name]
    head = getattr(heads, head_name)(head_options, context)
    loss = make_loss(LossContext(task=task))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    batch = batch_of(task, train, "train")
    for _ in range(80):
        optimizer.zero_grad()
        (term,) = loss(head({"c5": train.features}, batch), batch).values()
        term.backward()
        optimizer.step()
    head.eval()
    batch = batch_of(task, val, "val")
    predictions = head.predict(head({"c5": val.features}, batch), batch)
    for make, made in ((metrics.f1, options.AverageOptions()), (metrics.auroc, options.AurocOptions())):
        metric = make(made, MetricContext(task=task))
        metric.update(predictions, batch.targets)
        (value,) = metric.compute().values()
        assert value == pytest.approx(1)
    row = task.describe(predictions[0])
    # The first sample's one class is number 0, which the validation split calls cats.
    assert row["label" if field == "label" else "labels"] == "cats"
