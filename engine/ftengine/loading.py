"""Batches of a split, made here or by processes that are watched: one that dies or hangs is noticed and named.

What may reach these workers: Ctrl-C and SIGTERM, which often go to all processes of a group, leave them alone, since
the main process still needs them to finish its step. They end when it closes them, and when it ends in whatever way.
"""

from __future__ import annotations

import atexit
import itertools
import multiprocessing
import os
import signal
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from ftengine.data import Failure, Split
from ftengine.errors import DataError, WorkerError
from ftengine.model import StreamBatch
from ftengine.order import TrainOrder
from ftengine.worker_process import LINUX, signals_later, start_worker

if TYPE_CHECKING:
    from ftengine.training import Training

Order = TrainOrder | list[list[tuple[int, int]]]
POLL = 0.5
"""Seconds between looks at the workers and for signals, while no batch comes."""
IDLE, COLLATING = -1, -2
SHOWN = 4
HINTS = {
    signal.SIGKILL: "the system may have run out of memory: lower train.workers, train.batch_size or image.size",
    signal.SIGBUS: "shared memory may be full (/dev/shm; `docker run --shm-size`): lower train.workers or "
    "train.batch_size",
}
CRASH = "a library may have crashed on that sample: the same run with train.workers=0 shows where, or goes through"


@dataclass
class LoaderSettings:
    """How batches are made: worker processes, and pinned memory for a GPU.

    `timeout`: seconds without a batch after which workers count as hung. `check` is called before each batch, and
    every `POLL` seconds while workers let it wait; what it raises ends the loading.
    """

    workers: int = 0
    pin_memory: bool = False
    timeout: float = 300.0
    check: Callable[[], None] = lambda: None


def batches(split: Split, order: Order, settings: LoaderSettings) -> Generator[StreamBatch]:
    """The batches that `order` lists; close the iterator to end the workers before the last of them.

    Raises DataError for a sample that cannot be read, WorkerError for a worker that died or hangs; none is left then.
    """
    with closing(_Loading(split, order, settings)) as loading:
        for batch in loading:
            if isinstance(batch, Failure):
                raise DataError(batch.message)
            if split.quarantine is not None:
                split.quarantine.add(batch.bad)
            if len(batch):  # else all of its samples are left out
                yield batch


def feed(
    run: Training, name: str, start: int | None = None, stop: int | None = None, *, whole: bool = False
) -> Generator[StreamBatch]:
    """The training batches of a stream from step `start` (None: the current one) to `stop` (None: the end).

    Of several processes each gets its part of every batch, or, if wanted, the `whole`.
    A stream shorter than the epoch begins its own epochs anew.
    """
    split = run.streams[name].train
    config = run.plan.config.train
    first, last = run.step if start is None else start, run.steps if stop is None else stop
    part = (0, 1) if whole else (run.world.rank, run.world.size)
    order = TrainOrder(len(split), config.batch, config.seed, name, first, last, split.groups, *part)
    return batches(split, order, run.loader)


@contextmanager
def open_feeds(run: Training) -> Iterator[dict[str, Iterator[StreamBatch]]]:
    """The training batches of each stream from the current step on; afterwards their workers have ended."""
    with ExitStack() as held:
        yield {name: held.enter_context(closing(feed(run, name))) for name in run.streams}


class _Watched(TorchDataset[Any]):
    """A split whose workers note on a board, which the main process can read, what each of them is doing."""

    def __init__(self, split: Split, workers: int) -> None:
        self.split = split
        self.board = multiprocessing.RawArray("q", [IDLE] * workers)
        self.made = multiprocessing.RawArray("q", workers)
        """The batches that each worker has made."""

    def __getitem__(self, key: tuple[int, int]) -> Any:
        with self._noted(key[1]):
            return self.split[key]

    def collate(self, items: Sequence[Any]) -> Any:
        with self._noted(COLLATING):
            return self.split.collate(items)

    @contextmanager
    def _noted(self, what: int) -> Iterator[None]:
        worker = get_worker_info()
        if worker is None:
            yield
            return
        self.board[worker.id] = what
        try:
            yield
        finally:
            self.board[worker.id] = IDLE
            self.made[worker.id] += what == COLLATING


class _Loading:
    """The iterator of a loader, and its workers, as long as it goes."""

    def __init__(self, split: Split, order: Order, settings: LoaderSettings) -> None:
        self.split = split
        self.order = order
        self.settings = settings
        self.watched = _Watched(split, settings.workers)
        self.received = 0
        self.workers: list[Any] = []
        loader: DataLoader[Any] = DataLoader(
            self.watched,
            batch_sampler=order,
            num_workers=settings.workers,
            collate_fn=self.watched.collate,
            pin_memory=settings.pin_memory,
            generator=torch.Generator(),  # the loader draws a seed for its workers: not from the run's generator
            worker_init_fn=partial(start_worker, os.getpid()) if settings.workers else None,
            multiprocessing_context="fork" if settings.workers and LINUX else None,
            timeout=POLL if settings.workers else 0,
        )
        settings.check()
        self.iterator: Any = self._start(loader) if settings.workers else iter(loader)

    def _start(self, loader: DataLoader[Any]) -> Any:
        try:
            with signals_later():
                iterator: Any = iter(loader)
        except OSError as error:
            raise WorkerError(
                f"the {self.settings.workers} processes that load data could not be started: {error.strerror}; lower "
                "train.workers"
            ) from None
        self.workers = iterator._workers
        _open.add(self)
        handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
        if getattr(handler, "__module__", "").startswith("torch.utils.data"):
            # It would raise wherever the main thread is when a worker dies, be it in the middle of saving.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return iterator

    def __iter__(self) -> Iterator[StreamBatch | Failure]:
        while True:
            try:
                batch = self._next()
            except StopIteration:
                return
            self.received += 1
            yield batch

    def _next(self) -> Any:
        since = time.monotonic()
        while True:
            self.settings.check()
            try:
                return next(self.iterator)
            except (RuntimeError, OSError, EOFError) as error:
                if not self.workers:
                    raise
                if not isinstance(error, RuntimeError):  # a tensor is fetched from its worker, which may be dying
                    for worker in self.workers:
                        worker.join(POLL / len(self.workers))
                dead = [number for number, worker in enumerate(self.workers) if worker.exitcode is not None]
                if dead:
                    raise WorkerError(self._death(dead)) from None
                if not str(error).startswith("DataLoader timed out"):
                    raise
            if time.monotonic() - since >= self.settings.timeout:
                raise WorkerError(self._hang())

    def close(self) -> None:
        """End the workers; none is left, nor anything of them."""
        if not self.workers:
            return
        if self.settings.pin_memory:  # first, or the thread meets a queue whose other end is gone
            self.iterator._pin_memory_thread_done_event.set()
        self.kill()
        _open.discard(self)
        if self.iterator._shutdown:  # the last batch was taken, and torch has ended them
            return
        # torch would ask them to end, with a lock that one which was killed may hold, and then wait for the sample that
        # each of them is reading. What it does beside that is done here.
        self.iterator._shutdown = True
        _remove_worker_pids(id(self.iterator))
        for queue in (*self.iterator._index_queues, self.iterator._worker_result_queue):
            queue.cancel_join_thread()
            queue.close()

    def kill(self) -> None:
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.join()

    # --- what is said ----------------------------------------------------------------------------------------------

    def _death(self, dead: Sequence[int]) -> str:
        lines, hints = [], set()
        for number in dead:
            code = self.workers[number].exitcode
            if code < 0:
                name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
                how = f"was ended by {name}"
            else:
                how = f"has ended with exit code {code}"
            hints.add(HINTS.get(-code, CRASH))
            lines.append(f"{self._name(number)} {how} {self._doing(number)}")
        return "\n  ".join([*lines, *sorted(hints)])

    def _hang(self) -> str:
        awaited = self.received % len(self.workers)
        others = [number for number, doing in enumerate(self.watched.board) if doing >= 0 and number != awaited]
        lines = [f"no batch has come for {self.settings.timeout:g} seconds (train.worker_timeout):"]
        lines += [f"{self._name(number)} hangs {self._doing(number)}" for number in (awaited, *others)]
        lines.append("is what they read from slow or gone? Raise train.worker_timeout if reading may take so long")
        return "\n  ".join(lines)

    def _name(self, number: int) -> str:
        worker = self.workers[number]
        return f"process {number + 1} of {len(self.workers)} that load data (pid {worker.pid})"

    def _doing(self, number: int) -> str:
        """What a worker was doing; torch deals the batches in turn."""
        index = self.watched.board[number]
        if index >= 0:
            return f"while it was reading sample {self.split.data.sample_id(index)}"
        place = number + self.watched.made[number] * len(self.workers)
        batch = next(itertools.islice(self.order, place, None), [])
        names = [self.split.data.sample_id(index) for _, index in batch]
        which = "the batch of" if index == COLLATING else "the next batch, of"
        when = "while it was making" if index == COLLATING else "before it had made"
        return f"{when} {which} {', '.join(names)}" if names else "after its last batch"


_open: weakref.WeakSet[_Loading] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Otherwise the interpreter would, at its end, wait for workers that nobody has closed."""
    for loading in tuple(_open):
        loading.kill()
