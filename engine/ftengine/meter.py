"""The mean training loss since it was last asked for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Meter:
    """Sums on the device; `take` is the only synchronisation point."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, float] = {}
        self.samples = 0

    def add(self, loss: Tensor, terms: Mapping[str, Tensor], samples: int, parts: int) -> None:
        """Add one of the `parts` of a step: the loss and its terms, scalars that are means over `samples`."""
        for name, value in {"loss": loss, **{f"loss/{name}": term for name, term in terms.items()}}.items():
            value = value.detach().float() / parts
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1 / parts
        self.samples += samples

    def take(self) -> dict[str, float]:
        """The means since the last call, by name; empty if nothing was added."""
        if not self.sums:
            return {}
        values = torch.stack(list(self.sums.values())).tolist()
        means = {name: value / self.counts[name] for name, value in zip(self.sums, values, strict=True)}
        self.sums, self.counts, self.samples = {}, {}, 0
        return means
