"""The loss that fails."""

import os
import signal

from torch.nn import functional as F

from ftengine.protocols import Loss


class Failing(Loss):
    """``cross_entropy``; at training batch `at`, not a number, infinite, or with a signal to this process."""

    def __init__(self, options, context):
        super().__init__()
        self.options = options
        self.batches = 0

    def forward(self, output, batch):
        loss = F.cross_entropy(output["logits"].float(), batch.targets["label"])
        self.batches += self.training
        if self.training and self.batches == self.options.at and self.options.trigger.exists():
            if self.options.what.startswith("SIG"):
                os.kill(os.getpid(), getattr(signal, self.options.what))
            else:
                loss = loss * float(self.options.what)
        return {"cross_entropy": loss}
