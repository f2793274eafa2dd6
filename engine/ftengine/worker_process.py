"""How a process that loads data begins, and that it ends with the main one."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ftengine.claim import let_go
from ftengine.signals import HANDLED

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG = 1


@contextmanager
def signals_later() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back; from processes that are started meanwhile, until they say that they ignore them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(main: int, _: int) -> None:
    """One thread a worker: the processes are the parallelism. It ends with the process `main`."""
    if LINUX:  # elsewhere torch looks, after each batch and every few seconds, whether the main process is still there
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != main:  # it ended before this was asked for
            os._exit(1)
    let_go()
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
