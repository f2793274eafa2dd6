"""What the processes of a run tell each other at each step: gradients, statistics, losses, and whether to stop.

After the last backward pass of a step each process holds its part of the gradient. One small message says which of
them there are; then they are summed, one all-reduce for about 25 MB of them. So a step may have any number of backward
passes, use any of the parameters, and train others than the step before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ftengine.dist import World
from ftengine.guard import Computed
from ftengine.model import Model

BUCKET = 25 * 2**20
"""Bytes that are sent at once."""
Norm = nn.modules.batchnorm._NormBase


class Exchange:
    """Makes one step of all processes' parts of it. `model` has the same values in all of them."""

    def __init__(self, world: World, model: Model) -> None:
        self.world = world
        self.model = model
        self.stop = 0
        """The number of the signal that a process has received, since the last step at the latest."""
        self.due = False
        """Whether rank 0 wants a checkpoint after this step."""
        self._shares: dict[str, float] = {}  # of this process's parts, by the name of the loss's term
        self._whole: dict[str, float] = {}  # of all processes' parts
        self._seen = {name: (buffer, buffer._version) for name, buffer in self._others().items()}

    @torch.no_grad()
    def step(self, parts: Sequence[Computed], *, stop: int, due: bool) -> list[Computed]:
        """Let the gradients be the sums of all processes' own, and BatchNorm's running statistics their means.

        `parts` are what this process computed, with its shares of the whole batch; what is returned stands for those
        of all processes, without the others' ids. A gradient that only some processes have counts as zero in the
        others. Any other buffer that has changed is rank 0's. `stop`: the number of a received signal, or 0. No
        synchronisation point of the device, where it is a GPU.
        """
        if self.world.size == 1:
            return list(parts)
        parameters, others = list(self.model.parameters()), self._others()
        shares, sums = _sums(parts)
        message: list[int] = [stop, due and self.world.main, shares != self._shares]
        message += [parameter.grad is not None for parameter in parameters]
        message += [name not in self._seen or not _same(buffer, self._seen[name]) for name, buffer in others.items()]
        self.stop, wanted, unknown, *used = self.world.largest(message)
        self.due = bool(wanted)
        if unknown:
            self._agree_on_terms(shares)

        losses = torch.stack([sums[name] if name in sums else parts[0].loss.new_zeros(()) for name in self._whole])
        statistics = self._statistics()
        for statistic in statistics:
            statistic /= self.world.size
        gradients = []
        for parameter, exists in zip(parameters, used, strict=False):
            if exists:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        for bucket in _buckets([losses, *statistics, *gradients]):
            self._sum(bucket)
        self.world.copy_from_main([b for b, new in zip(others.values(), used[len(parameters) :], strict=True) if new])
        self._seen = {name: (buffer, buffer._version) for name, buffer in others.items()}
        return _as_parts(dict(zip(self._whole, losses, strict=True)), self._whole, parts)

    def _sum(self, tensors: Sequence[Tensor]) -> None:
        if len(tensors) == 1 and tensors[0].is_contiguous():
            self.world.all_reduce(tensors[0])
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        self.world.all_reduce(flat)
        pieces = flat.split([tensor.numel() for tensor in tensors])  # type: ignore[no-untyped-call]
        torch._foreach_copy_(list(tensors), [p.view(t.shape) for p, t in zip(pieces, tensors, strict=True)])

    def _statistics(self) -> list[Tensor]:
        """What every process's own part of the batch has moved: the running statistics of norms in train mode."""
        return [
            buffer
            for module in self.model.modules()
            if isinstance(module, Norm) and module.training
            for buffer in module.buffers(recurse=False)
            if buffer.is_floating_point()
        ]

    def _others(self) -> dict[str, Tensor]:
        """All buffers but those of norms, whose counts of batches are the same in all processes."""
        return {
            f"{place}.{name}": buffer
            for place, module in self.model.named_modules()
            if not isinstance(module, Norm)
            for name, buffer in module.named_buffers(recurse=False)
        }

    def _agree_on_terms(self, shares: dict[str, float]) -> None:
        self._shares, self._whole = shares, {}
        for own in self.world.gather(shares):
            for name, share in own.items():
                self._whole[name] = self._whole.get(name, 0.0) + share


LOSS = ""
"""The name of the loss itself among its terms."""


def _sums(parts: Sequence[Computed]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """For each term, and the loss, the sum of the shares of the parts that have it, and that of share times value."""
    shares: dict[str, float] = {}
    sums: dict[str, Tensor] = {}
    for part in parts:
        for name, value in {LOSS: part.loss, **part.terms}.items():
            value = value.float() * part.share
            shares[name] = shares.get(name, 0.0) + part.share
            sums[name] = sums[name] + value if name in sums else value
    return shares, sums


def _as_parts(sums: dict[str, Tensor], shares: dict[str, float], own: Sequence[Computed]) -> list[Computed]:
    """One part for the loss, and one for the terms of each share of the batch that has some."""
    ids = [name for part in own for name in part.ids]
    made = [Computed(ids, sums[LOSS], {}, 1.0)]
    for share in dict.fromkeys(shares.values()):
        terms = {name: sums[name] / share for name, own in shares.items() if own == share and name != LOSS}
        made.append(Computed([], torch.zeros_like(sums[LOSS]), terms, share))
    return made


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in groups of one type and of about 25 MB, in their order."""
    waiting: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        bucket = waiting.setdefault(tensor.dtype, [])
        bucket.append(tensor)
        if sum(part.nbytes for part in bucket) >= BUCKET:
            yield waiting.pop(tensor.dtype)
    yield from waiting.values()


def _same(buffer: Tensor, seen: tuple[Tensor, int]) -> bool:
    return buffer is seen[0] and buffer._version == seen[1]
