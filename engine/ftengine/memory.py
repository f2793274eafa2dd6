"""How much memory a run has needed."""

from __future__ import annotations

import resource
import sys

import torch
from torch import nn


class PeakMemory:
    """The most bytes that training has needed so far, the model's own included.

    On a GPU that is what its allocator has given out. Elsewhere it is how far the process's resident memory has grown
    since this was made, when libraries, data and `model` were there, and the size of `model`. `before` is the peak of
    an interrupted run's earlier processes.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.device = device
        self.before = 0
        tensors = [*model.parameters(), *model.buffers()]
        self._without = _resident() - sum(tensor.nbytes for tensor in tensors)

    @property
    def bytes(self) -> int:
        if self.device.type == "cuda":
            return max(self.before, torch.cuda.max_memory_allocated(self.device))
        return max(self.before, _resident() - self._without)


def _resident() -> int:
    """The process's largest resident memory, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
