"""The generators that a whole process shares, which no component may depend on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def global_seeds(seed: int) -> Iterator[None]:
    """Within it the global generators of random, numpy and torch (CPU) begin at `seed`; after it they are as before."""
    held = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(held[0])
        np.random.set_state(held[1])
        torch.random.set_rng_state(held[2])


@contextmanager
def noted_draws(drawn: list[str]) -> Iterator[None]:
    """Adds to `drawn` the libraries whose global generator is not at its end as it was at the beginning."""
    before = _states()
    yield
    drawn += [name for name, state in _states().items() if state != before[name]]


class FewNumbers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, large tensors are filled with the same few random numbers over and over.

    For a network whose values nobody reads: those of large ones take seconds. A factory finds what it expects, unlike
    on torch's meta device: it may compute with numbers, and draw them until they suit it.
    """

    COUNT = 65_537

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        fills = func in (torch.ops.aten.uniform_.default, torch.ops.aten.normal_.default)
        if not fills or args[0].numel() <= self.COUNT or not args[0].is_contiguous():
            return func(*args, **(kwargs or {}))
        numbers = func(args[0].new_empty(self.COUNT), *args[1:], **(kwargs or {}))
        for part in args[0].view(-1).split(self.COUNT):
            part.copy_(numbers[: len(part)])
        return args[0]


def _states() -> dict[str, object]:
    kind, keys, *rest = np.random.get_state()
    return {
        "random": random.getstate(),
        "numpy": (kind, np.asarray(keys).tobytes(), rest),
        "torch": torch.random.get_rng_state().numpy().tobytes(),
    }
