"""The mean training loss since it was last asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ftengine.guard import Computed


class Meter:
    """Sums on the device; `take` and `state` are the only synchronisation points."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, float] = {}
        self.samples = 0
        self.steps = 0

    def add(self, parts: Sequence[Computed], processes: int = 1) -> None:
        """Add one step: the loss and the terms of each part of its batches, means over the part's samples.

        Where a part stands for several processes, each of them has as many samples as it names.
        """
        for part in parts:
            named = {"loss": part.loss, **{f"loss/{name}": term for name, term in part.terms.items()}}
            for name, value in named.items():
                value = value.float() * part.share
                self.sums[name] = self.sums[name] + value if name in self.sums else value
                self.counts[name] = self.counts.get(name, 0) + part.share
            self.samples += len(part.ids) * processes
        self.steps += 1

    def take(self) -> dict[str, float]:
        """The means over the steps that were added since the last call, by name; empty if there were none.

        ``loss`` is what a step minimises: the sum over its streams. A term is averaged over the batches that have it.
        """
        if not self.sums:
            return {}
        counts = {**self.counts, "loss": self.steps}
        means = {name: value / counts[name] for name, value in self._values().items()}
        self.sums, self.counts, self.samples, self.steps = {}, {}, 0, 0
        return means

    def state(self) -> dict[str, Any]:
        """What was added since the last `take`, as JSON data."""
        return {
            "sums": self._values(),
            "counts": dict(self.counts),
            "samples": self.samples,
            "steps": self.steps,
        }

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take back what `state` returned; a float32 survives JSON to the bit."""
        self.sums = {name: torch.tensor(value, device=device) for name, value in state["sums"].items()}
        self.counts = dict(state["counts"])
        self.samples, self.steps = state["samples"], state["steps"]

    def _values(self) -> dict[str, float]:
        if not self.sums:
            return {}
        return dict(zip(self.sums, torch.stack(list(self.sums.values())).tolist(), strict=True))
