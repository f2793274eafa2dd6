"""The loss, the metric and the freeze policy."""

from torch.nn import functional as F

from ftengine.protocols import FreezePolicy, Loss, Metric


class Margin(Loss):
    """``margin``: the mean hinge of every wrong class's logit against the true one's."""

    def __init__(self, options, context):
        super().__init__()
        self.margin = options.margin

    def forward(self, output, batch):
        return {"margin": F.multi_margin_loss(output["logits"].float(), batch.targets["label"], margin=self.margin)}


class ErrorRate(Metric):
    """``error_rate`` in 0..1."""

    def __init__(self, options, context):
        self.reset()

    def reset(self):
        self.wrong, self.all = 0, 0

    def update(self, predictions, targets):
        for prediction, label in zip(predictions, targets["label"], strict=True):
            self.wrong += int(prediction["scores"].argmax() != label)
            self.all += 1

    def compute(self):
        return {"error_rate": self.wrong / self.all}

    def merge(self, other):
        self.wrong += other.wrong
        self.all += other.all


class FirstEpochs(FreezePolicy):
    """All stages are frozen while fewer than `epochs` are done."""

    def __init__(self, options, context):
        self.epochs = options.epochs

    def frozen(self, stages, progress):
        return set(stages) if progress.epoch < self.epochs else set()
