"""The losses that fail."""

import os
import random
import signal

import torch
from torch.nn import functional as F

from ftengine.errors import FtengineError
from ftengine.protocols import Loss


class Hidden(Loss):
    """``cross_entropy``, times a number near 1: a random one, or one that grows with the batches of this process."""

    def __init__(self, options, context):
        super().__init__()
        self.what = options.what
        self.batches = 0
        self.random = random.Random(os.urandom(8))

    def forward(self, output, batch):
        self.batches += self.training
        factor = self.random.uniform(0.9, 1.1) if self.what == "randomness" else 1 + 0.01 * self.batches
        return {"cross_entropy": factor * F.cross_entropy(output["logits"].float(), batch.targets["label"])}


class Failing(Loss):
    """``cross_entropy``; at training batch `at`, not a number, infinite, or with a signal to this process, or none."""

    def __init__(self, options, context):
        super().__init__()
        self.options = options
        self.batches = 0

    def forward(self, output, batch):
        loss = F.cross_entropy(output["logits"].float(), batch.targets["label"])
        self.batches += self.training
        here = self.options.rank is None or os.environ.get("RANK") == str(self.options.rank)
        if self.training and here and self.batches == self.options.at and self.options.trigger.exists():
            if self.options.what.startswith("SIG"):
                if self.options.what.endswith("once"):
                    self.options.trigger.unlink()
                os.kill(os.getpid(), getattr(signal, self.options.what.split()[0]))
            elif self.options.what == "raise":
                raise FtengineError("the loss has failed")
            elif self.options.what == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            else:
                loss = loss * float(self.options.what)
        return {"cross_entropy": loss}
