"""All randomness of a run, as pure functions of (seed, step, sample).

Nothing here has state, so no generator's state is ever saved: a run that continues at step k computes what an
uninterrupted one would have computed there, with any number of workers.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

CPU = torch.device("cpu")


def derive(seed: int, *parts: int | str) -> int:
    """A 63-bit seed for one purpose: a hash of the run's seed and what the seed is for.

    ``derive(0, "order", epoch)``, ``derive(0, "augment", epoch, index)``, ``derive(0, "step", step)``.
    """
    text = "/".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def order(seed: int, epoch: int, length: int, stream: str = "") -> np.ndarray:
    """The order of samples in an epoch: a permutation, int64 [length]."""
    return np.random.default_rng(derive(seed, "order", stream, epoch)).permutation(length)


def seed_init(seed: int) -> None:
    """Seed torch's generators for the random initialisation of new layers."""
    torch.manual_seed(derive(seed, "init"))


def seed_step(seed: int, step: int, device: torch.device = CPU, rank: int = 0) -> None:
    """Seed the generators of the CPU and of `device` for one optimizer step: dropout, stochastic depth, sampling.

    Each process of a run has its own randomness, and the first that of a run of one process.
    Not by ``torch.manual_seed``, which takes 0.1 ms where there is no GPU, every step.
    """
    value = derive(seed, "step", step, *([rank] if rank else []))
    torch.default_generator.manual_seed(value)
    if device.type != "cpu":
        module = torch.get_device_module(device)
        getattr(module, "manual_seed_all", module.manual_seed)(value)
