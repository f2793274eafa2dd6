"""Holds the promise of freezing: what was frozen is compared with what it was, bit by bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftengine.errors import TrainingError

SHOWN = 5


def digest(tensor: Tensor) -> str:
    """A BLAKE2b hash of type, shape and values, the latter in row-major order whatever the memory format.

    Two tensors of one digest are the same bit for bit: a NaN equals itself, and 0.0 is not -0.0. The values of a
    tensor on an accelerator are copied to the CPU, so this is a synchronisation point.
    """
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    made = hashlib.blake2b(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), digest_size=16)
    made.update(flat.view(torch.uint8).numpy().data)
    return made.hexdigest()


class Audit:
    """The digests of what is frozen, each with the epoch in which it was frozen.

    ``update(model, held, epoch)`` at each change of what is frozen, ``check(model)`` at the end of training.
    """

    def __init__(self) -> None:
        self._digests: dict[str, tuple[str, int]] = {}

    def update(self, model: nn.Module, held: Mapping[str, Tensor], epoch: int) -> None:
        """End one period with a `check`, and begin the next, from `epoch` on, in which `held` must not change.

        `held` is by names in the model's state_dict. What was held before and still is keeps its first digest.
        """
        self.check(model)
        before = self._digests
        self._digests = {
            name: before[name] if name in before else (digest(tensor), epoch) for name, tensor in held.items()
        }

    def check(self, model: nn.Module) -> None:
        """Raises TrainingError, which names the tensors, if any that is held has changed or is no longer there."""
        now = model.state_dict()
        drifted = {
            name: epoch
            for name, (before, epoch) in self._digests.items()
            if name not in now or digest(now[name]) != before
        }
        if not drifted:
            return
        lines = [f"    {name}, frozen since epoch {epoch}" for name, epoch in list(drifted.items())[:SHOWN]]
        if len(drifted) > SHOWN:
            lines.append(f"    … (+{len(drifted) - SHOWN})")
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        causes = []
        if drifted.keys() & parameters:
            causes.append("a component that writes weights in place, or an optimizer that moves those without gradient")
        if drifted.keys() - parameters:
            causes.append(
                "a layer that was put back in train mode, or a module that counts or averages in its forward pass "
                "(`freeze.frozen_norm: train` lets the statistics of normalisation layers move)"
            )
        raise TrainingError(
            "\n".join(
                [
                    f"{len(drifted)} of {len(self._digests)} frozen tensors have changed while they were frozen:",
                    *lines,
                    f"  common causes: {'; or '.join(causes)}",
                ]
            )
        )

    def renew(self, model: nn.Module) -> None:
        """`model` was set to other weights on purpose: from now on what is held is compared with these."""
        now = model.state_dict()
        self._digests = {name: (digest(now[name]), epoch) for name, (_, epoch) in self._digests.items()}

    def state(self) -> dict[str, Any]:
        """The digests, as JSON data: name -> [digest, epoch]."""
        return {name: list(entry) for name, entry in self._digests.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned: from now on the model is compared with what it was before."""
        self._digests = {name: (str(made), int(epoch)) for name, (made, epoch) in state.items()}
