"""One run at a time in a run directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftengine.errors import CheckpointError

try:
    import fcntl
except ImportError:  # not a POSIX system: nothing is checked
    fcntl = None  # type: ignore[assignment]


_held: set[int] = set()


def let_go() -> None:
    """In a process that was forked: it holds nothing, so that what its parent holds ends with its parent."""
    while _held:
        os.close(_held.pop())


@contextmanager
def claim(directory: Path, *, surely: bool = False) -> Iterator[None]:
    """Hold `directory`, which exists, for this process; raises CheckpointError where another one holds it.

    The system lets go of it when the process ends, however it ends. A file system without locks holds nothing;
    `surely`: that is an error, too.
    """
    unknown = f"{directory}: there are no locks, so that nobody knows whether another process uses this directory"
    if fcntl is None:
        if surely:
            raise CheckpointError(unknown)
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    _held.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"{directory}: another process is training in this directory") from None
        except OSError:
            if surely:
                raise CheckpointError(unknown) from None
        yield
    finally:
        _held.discard(handle)
        os.close(handle)
