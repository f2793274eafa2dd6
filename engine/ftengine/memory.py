"""How much memory a run has needed."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

import torch
from torch import nn

PROCESS = Path("/proc/self")
"""Where Linux tells a process about itself."""
GROUPS = Path("/sys/fs/cgroup")
CONTROL_GROUPS = (
    (GROUPS / "memory.max", GROUPS / "memory.current"),
    (GROUPS / "memory" / "memory.limit_in_bytes", GROUPS / "memory" / "memory.usage_in_bytes"),
)
"""The limit of a container's memory and what it uses, in both versions of control groups."""


class PeakMemory:
    """The most bytes that training has needed so far, the model's own included.

    On a GPU that is what its allocator has given out. Elsewhere it is how far the process's resident memory has grown
    at most since this was made, when libraries, data and `model` were there, and the size of `model`; where the system
    cannot begin its record of the peak anew (it can on Linux), a higher peak before hides a part of it. `before` is the
    peak of an interrupted run's earlier processes.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.device = device
        self.before = 0
        with contextlib.suppress(OSError):
            (PROCESS / "clear_refs").write_text("5")  # the peak begins anew at what is resident now
        self._without = _peak() - sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])

    @property
    def bytes(self) -> int:
        if self.device.type == "cuda":
            return max(self.before, torch.cuda.max_memory_allocated(self.device))
        return max(self.before, _peak() - self._without)


def _peak() -> int:
    """The process's largest resident memory, in bytes."""
    try:
        status = (PROCESS / "status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def available_memory() -> int:
    """Bytes that this process can still get without the system's having to swap or kill.

    On Linux what the system says is available, within the limit of the process's control group (a container's memory).
    Elsewhere half of the memory that the machine has.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    for limit, used in CONTROL_GROUPS:
        with contextlib.suppress(OSError, ValueError):  # there is none, or "max"
            available = min(available, int(limit.read_text()) - int(used.read_text()))
    return max(0, available)
