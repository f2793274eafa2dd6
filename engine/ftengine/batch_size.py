"""``train.batch_size: auto``: the largest that fits into the memory, found by training steps that do not count.

Tried are `accumulate` times 2, 4, 8 and so on, each with steps as a run takes them (forward, backward, optimizer) on
batches of the training data, in the epoch in which most trains; what was built for that is thrown away. A size fits

- on a GPU if the steps leave a tenth of the memory that was free before free;
- on a CPU, where the system would rather kill a process than refuse it memory, if twice what half of it needed is at
  most 80 % of the memory that is available. Nothing is tried after steps of more than 30 seconds.

It is never more than the smallest training split of a stream, nor so much that an epoch has fewer than 8 steps.
"""

from __future__ import annotations

import gc
import io
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from ftengine.config_faults import NonFiniteConfig
from ftengine.errors import FtengineError
from ftengine.loading import feed
from ftengine.memory import PeakMemory, available_memory
from ftengine.micro_batch import OutOfMemoryError, free_memory
from ftengine.optim import set_learning_rates
from ftengine.plan import Plan
from ftengine.protocols import Progress
from ftengine.step import take_step
from ftengine.training import Training

STEPS_PER_EPOCH = 8
STEPS = 2
"""Of each size: the second has the optimizer's state beside it."""
SHARE_OF_GPU, SHARE_OF_SYSTEM = 0.9, 0.8
SECONDS = 30.0
GIB = 2**30


def settle_batch_size(plan: Plan, assemble: Callable[[Plan, Console], Training], console: Console) -> Plan:
    """`plan` with a number for `auto`, of which the console is told.

    `assemble` builds a run of a plan. Raises FtengineError for data that are too few, OutOfMemoryError where not even
    the smallest size fits.
    """
    smallest = 2 * plan.config.train.accumulate
    training = assemble(_for_trial(plan, smallest), Console(file=io.StringIO()))
    try:
        size, why = _largest(training, smallest)
    finally:
        device = training.precision.device
        del training
        gc.collect()  # modules and their hooks refer to each other
        free_memory()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
    console.print(f"train.batch_size: auto is {size}: {why}", soft_wrap=True)
    return plan.with_train(batch_size=size)


def _for_trial(plan: Plan, size: int) -> Plan:
    return plan.with_train(
        batch_size=size,
        auto_micro_batch=False,
        workers=0,
        on_non_finite=NonFiniteConfig(policy="skip", limit=2**31),
    )


def _largest(training: Training, smallest: int) -> tuple[int, str]:
    """The size, and why it is not twice as much."""
    lengths = [len(stream.train) for stream in training.streams.values()]
    limit = min(min(lengths), max(lengths) // STEPS_PER_EPOCH)
    if smallest > limit:
        raise FtengineError(
            f"train.batch_size: auto tries {smallest} samples and more, and leaves an epoch {STEPS_PER_EPOCH} steps: "
            f"{max(lengths)} training samples are too few for that; give a number"
        )
    training.tracker.file = Path(os.devnull)
    training.begin_epoch(busiest_epoch(training))
    device = training.precision.device
    gpu = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if gpu else 0
    free = _free_on_gpu(device) if gpu else available_memory()
    peak = PeakMemory(nn.Module(), device)
    size = 0
    while True:
        following = 2 * size or smallest
        if following > limit:
            return size, f"with {following} an epoch would have fewer than {STEPS_PER_EPOCH} steps, or none"
        try:
            seconds = _try(training, following)
        except OutOfMemoryError as error:
            if not size:
                raise
            return size, f"with {following} it is {str(error).splitlines()[0]}"
        needed = peak.bytes - before
        if gpu and needed > SHARE_OF_GPU * free and size:
            return size, f"{following} needs {needed / GIB:.1f} of the {free / GIB:.1f} GiB that are free on the GPU"
        size = following
        if not gpu and 2 * needed > SHARE_OF_SYSTEM * free:
            text = f"{2 * size} would need about {2 * needed / GIB:.1f} of the {free / GIB:.1f} GiB that are available"
            return size, text
        if not gpu and seconds > SECONDS:
            return size, f"a step with it takes {seconds:.0f} seconds on this CPU"


def _try(training: Training, size: int) -> float:
    """Take steps with `size` samples; the seconds of the fastest. Raises OutOfMemoryError."""
    trial = replace(training, plan=_for_trial(training.plan, size))
    trial.model.train()
    set_learning_rates(trial.optimizer, 0.0)  # the numbers stay as they are: only their memory is at issue
    seconds = []
    feeds = {name: feed(trial, name, 0, STEPS) for name in trial.streams}
    try:
        for step in range(STEPS):
            started = time.perf_counter()
            take_step(trial, feeds, step)
            trial.check_numbers()  # a synchronisation point: what was asked of a GPU is done
            seconds.append(time.perf_counter() - started)
    finally:
        for batches in feeds.values():
            batches.close()
    return min(seconds)


def _free_on_gpu(device: torch.device) -> int:
    """Bytes that this process can still get, or has and does not use."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def busiest_epoch(training: Training) -> int:
    """The first epoch in which the most parameters train; that of a policy's measurement, if it wants one."""
    epochs = training.plan.config.train.epochs
    policy, most, found = training.freezer.policy, -1, 0
    for epoch in range(epochs):
        progress = Progress(epoch, epochs)
        if policy.batches_to_measure(progress):
            return epoch
        training.freezer.apply(progress)
        trains = sum(parameter.numel() for parameter in training.model.parameters() if parameter.requires_grad)
        if trains > most:
            most, found = trains, epoch
    return found
