"""The generators that a whole process shares, which no component may depend on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


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


def _states() -> dict[str, object]:
    kind, keys, *rest = np.random.get_state()
    return {
        "random": random.getstate(),
        "numpy": (kind, np.asarray(keys).tobytes(), rest),
        "torch": torch.random.get_rng_state().numpy().tobytes(),
    }
