"""The components together, from a dataset's targets to metrics and rows, without a backbone."""

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from ftengine.plugin import Options
from ftengine.protocols import Batch, Dataset, Frame, HeadContext, LossContext, MetricContext, TaskContext
from ftengine_regression import heads, losses, metrics, options
from ftengine_regression.task import Regression


class Curve(Dataset):
    """price = 1000 exp(3 x) and rooms = 2 + x, from the feature x."""

    def __init__(self, names, count, seed):
        x = np.random.default_rng(seed).random(count)
        known = {"price_usd": 1000 * np.exp(3 * x), "rooms": 2 + x}
        self.names = {"values": names}
        self.values = np.stack([known[name] for name in names], axis=1).astype(np.float32)
        self.features = torch.tensor(x, dtype=torch.float32)[:, None, None, None]

    def __len__(self):
        return len(self.values)

    def target(self, index):
        return {"values": self.values[index]}

    def image(self, index):
        raise AssertionError("not needed here")

    def sample_id(self, index):
        return str(index)


def batch_of(task, data, place):
    encode = task.encoder(data, place)
    targets = default_collate([{"values": torch.as_tensor(encode(data.target(i))["values"])} for i in range(len(data))])
    ids = [data.sample_id(i) for i in range(len(data))]
    return Batch(
        images=torch.zeros(len(data), 3, 1, 1), targets=targets, ids=ids, frames=[Frame.whole(1, 1)] * len(data)
    )


@pytest.mark.parametrize("loss_name", ["mse", "l1", "huber"])
def test_a_line_in_log_space_is_learned(loss_name):
    torch.manual_seed(0)
    train = Curve(("price_usd", "rooms"), 60, seed=0)
    # The validation split names its values in another order.
    val = Curve(("rooms", "price_usd"), 40, seed=1)
    task = Regression(options.TaskOptions(transform={"price_usd": "log"}), TaskContext(field="values"))
    task.fit(train)
    head = heads.linear(options.LinearOptions(), HeadContext(channels={"c5": 1}, strides={"c5": 32}, task=task))
    loss_options = options.HuberOptions() if loss_name == "huber" else options.LossOptions()
    loss = getattr(losses, loss_name)(loss_options, LossContext(task=task))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    batch = batch_of(task, train, "train")
    for _ in range(300):
        optimizer.zero_grad()
        loss(head({"c5": train.features}, batch), batch)[loss_name].backward()
        optimizer.step()
        schedule.step()
    head.eval()
    batch = batch_of(task, val, "val")
    predictions = head.predict(head({"c5": val.features}, batch), batch)
    metric = metrics.mape(Options(), MetricContext(task=task))
    metric.update(predictions, batch.targets)
    values = metric.compute()
    assert values["mape/price_usd"] < 0.01
    assert values["mape/rooms"] < 0.01
    row = task.describe(predictions[0])
    assert row == {
        "price_usd": pytest.approx(float(val.values[0, 1]), rel=0.05),
        "rooms": pytest.approx(float(val.values[0, 0]), rel=0.05),
    }
