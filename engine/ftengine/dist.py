"""The processes of one run: who is who, what they agree on, what they hand to each other.

Two process groups: the default one, for tensors on the device (NCCL on GPUs, gloo on CPUs), and one of gloo on CPUs
for everything else, so that agreeing on something never waits for a GPU. Objects travel pickled from one process of the
run to another, through memory: nothing that is read from a disk is ever unpickled.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from ftengine.errors import FtengineError, TrainingError
from ftengine.launch import Launch

T = TypeVar("T")
FAILED = "failed"
"""Where in the store the first process that fails says why."""
MEETING_POLL = 0.02
"""Seconds between looks at who has come."""


class LostProcessError(TrainingError):
    """Another process of the run has ended, or does not answer."""


class World:
    """The processes of a run; alone, where there is one, and then nothing of torch.distributed is used.

    Every method is called by all processes, in the same order. Each raises LostProcessError where another process has
    ended or does not answer within the time-out.
    """

    def __init__(self, launch: Launch = Launch()) -> None:  # noqa: B008 - it is frozen
        self.launch = launch
        self.rank, self.size, self.main = launch.rank, launch.size, launch.main
        self.timeout = 0.0
        self._group: Any = None
        self._store: Any = None

    @classmethod
    @contextmanager
    def join(cls, launch: Launch, device: torch.device, timeout: float) -> Iterator[World]:
        """Meet the other processes at MASTER_ADDR:MASTER_PORT; in the end, without an error, all leave together.

        `timeout`, in seconds, is for the meeting and for every answer from then on.
        """
        world = cls(launch)
        if launch.size == 1:
            yield world
            return
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if name not in os.environ:
                raise FtengineError(
                    f"WORLD_SIZE is {launch.size}, but {name} is not set: it says where process 0 is to be met; "
                    "torchrun sets it"
                )
        world._meet(device, timeout)
        try:
            yield world
            with world._answered():  # nobody leaves before the last has written what it has to
                dist.barrier(world._group)
            dist.destroy_process_group()
        except Exception as error:
            world._failed(error)
            raise

    def _meet(self, device: torch.device, timeout: float) -> None:
        self.timeout, wait = timeout, timedelta(seconds=timeout)
        try:
            found, _, _ = next(rendezvous("env://", self.rank, self.size, timeout=wait))
            self._store = PrefixStore(f"ftengine/{_meeting(found, self.rank, self.size, timeout)}", found)
            if device.type == "cuda":
                torch.cuda.set_device(device)
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=self._store,
                rank=self.rank,
                world_size=self.size,
                timeout=wait,
                device_id=device if device.type == "cuda" else None,
            )
            self._group = dist.new_group(backend="gloo", timeout=wait)
        except (RuntimeError, ValueError) as error:
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise LostProcessError(
                f"the {self.size} processes of the run have not met at {place} within {timeout:g} seconds: "
                f"{_first_line(error)}"
            ) from None

    def _failed(self, error: Exception) -> None:
        """Leave the reason where the others find it when they notice that this process has gone."""
        if not isinstance(error, LostProcessError):
            with contextlib.suppress(RuntimeError):
                self._store.set(FAILED, f"rank {self.rank}: {error or type(error).__name__}")

    @contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError):  # this process's own
                raise
            reason = f"it has ended, or has not answered for {self.timeout:g} seconds (train.process_timeout)"
            with contextlib.suppress(RuntimeError):
                if self._store.check([FAILED]):
                    reason = self._store.get(FAILED).decode()
            text = f"another process of the run is lost: {reason}"
            raise LostProcessError(f"{text}\n  {_first_line(error)}") from None

    # --- numbers -------------------------------------------------------------------------------------------------

    def all_reduce(self, tensor: Tensor, op: Any = dist.ReduceOp.SUM) -> None:
        """Replace `tensor`, of one shape and type in all processes and on the run's device, by its sum over them."""
        if self.size > 1:
            with self._answered():
                dist.all_reduce(tensor, op)

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each of the `numbers` of all processes; the device is not waited for."""
        if self.size == 1:
            return list(numbers)
        message = torch.tensor(list(numbers), dtype=torch.int64)
        with self._answered():
            dist.all_reduce(message, dist.ReduceOp.MAX, self._group)
        return message.tolist()

    def copy_from_main(self, tensors: Sequence[Tensor]) -> None:
        """Replace `tensors`, on the run's device, by those of rank 0."""
        if self.size == 1:
            return
        for tensor in tensors:
            plain = tensor.detach()
            sent = (plain.view(torch.uint8) if plain.dtype == torch.bool else plain).contiguous()
            with self._answered():
                dist.broadcast(sent, 0)
            plain.copy_(sent)

    # --- objects -------------------------------------------------------------------------------------------------

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank. They must pickle."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self._answered():
            dist.all_gather_object(values, value, self._group)
        return values

    def to_main(self, value: T) -> list[T]:
        """In rank 0 the values of all processes, by rank; elsewhere none. They must pickle."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.main else None
        with self._answered():
            dist.gather_object(value, values, 0, self._group)
        return values or []

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` returns in rank 0, the only one that calls it. An error that it raises there ends all."""
        if self.size == 1:
            return make()
        if not self.main:
            received: T = self._receive()
            return received
        try:
            made = make()
        except Exception as error:
            self._failed(error)
            self._send((str(error), None))
            raise
        self._send((None, made))
        return made

    def _send(self, value: tuple[str | None, Any]) -> None:
        with self._answered():
            dist.broadcast_object_list([value], 0, self._group)

    def _receive(self) -> Any:
        values: list[Any] = [None]
        with self._answered():
            dist.broadcast_object_list(values, 0, self._group)
        error, value = values[0]
        if error is not None:
            raise LostProcessError(f"another process of the run is lost: rank 0: {error}")
        return value

    def same(self, what: str, value: Any) -> None:
        """Raises FtengineError unless `value`, which compares and pickles, is the same in all processes."""
        values = self.gather(value)
        other = next((rank for rank, found in enumerate(values) if found != values[0]), None)
        if other is not None:
            raise FtengineError(
                f"{what} of rank {other} is not that of rank 0: all processes of a run must see the same config, data "
                f"and software\n  rank 0: {_short(values[0])}\n  rank {other}: {_short(values[other])}"
            )

    # --- shares --------------------------------------------------------------------------------------------------

    def share(self, count: int) -> range:
        """Which of `count` things are this process's: contiguous, in the order of ranks, alike but for one."""
        return range(-(-count * self.rank // self.size), -(-count * (self.rank + 1) // self.size))


def _meeting(store: Any, rank: int, size: int, timeout: float) -> str:
    """A name for this meeting that all processes agree on, and none before has had: rank 0's.

    A launcher may keep its store when it starts processes again, or replaces a machine, and what those before have
    left there leads nowhere. So each process asks under a name of its own, and rank 0 answers until all have heard it.
    """
    if rank:
        question = uuid.uuid4().hex
        store.set(f"ftengine/question/{rank}", question)
        answer: str = store.get(f"ftengine/answer/{question}").decode()
        store.set(f"ftengine/heard/{answer}/{rank}", "")
        return answer
    answer, missing, end = uuid.uuid4().hex, set(range(1, size)), time.monotonic() + timeout
    while missing:
        for other in sorted(missing):
            if store.check([f"ftengine/heard/{answer}/{other}"]):
                missing.remove(other)
            elif store.check([f"ftengine/question/{other}"]):
                store.set("ftengine/answer/" + store.get(f"ftengine/question/{other}").decode(), answer)
        if time.monotonic() > end:
            raise RuntimeError(f"{len(missing)} of {size} processes have not come: rank {min(missing)}")
        time.sleep(MEETING_POLL if missing else 0)
    return answer


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 300 else text[:300] + " …"


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
