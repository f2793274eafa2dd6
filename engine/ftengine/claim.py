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


@contextmanager
def claim(directory: Path) -> Iterator[None]:
    """Hold `directory`, which exists, for this process; raises CheckpointError where another one holds it.

    The system lets go of it when the process ends, however it ends. A file system without locks holds nothing.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"{directory}: another process is training in this directory") from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)
