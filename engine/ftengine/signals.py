"""Ctrl-C and SIGTERM end a run after the step in progress, with everything saved."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

HANDLED = (signal.SIGINT, signal.SIGTERM)
SAME = 1.0
"""Signals that follow the first within so many seconds are the same wish: `timeout` and launchers send two at once."""
OVER = b"\0"


class Interrupted(BaseException):
    """Not an error: the signal of this name has come, and what was being done, and can be done again, is cut off."""

    @property
    def code(self) -> int:
        """The exit code of a process that it ended."""
        return 128 + signal.Signals[str(self)]


class Signals:
    """While the context is open, the first signal is only noted in `received`; a second one ends the process.

    It ends at once, with exit code 128 + the signal's number and nothing tidied up, also while the main thread is busy
    in code that no Python handler can interrupt. What is on the disk must be whole at any time, and is. The processes
    in `children`, by id, get the second signal too.

    `shared`: one of several processes, which stop where all of them agree to, and not where a signal is noted.
    """

    def __init__(self, *, shared: bool = False) -> None:
        self.shared = shared
        self.received: signal.Signals | None = None
        self.children: set[int] = set()
        self._raises = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        # The handler in C writes each signal's number there before Python gets to run the handler below.
        self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, args=(reader,), name="signals", daemon=True)
        self._watcher.start()
        for number in HANDLED:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        self._writer.setblocking(True)
        self._writer.sendall(OVER)
        self._watcher.join()
        self._writer.close()

    def check(self) -> None:
        """Raises Interrupted if a signal has come, and it is for this process alone to stop."""
        if self.received is not None and not self.shared:
            raise Interrupted(self.received.name)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, a signal raises Interrupted where it arrives: for work that leaves nothing half done behind."""
        self._raises = True
        try:
            self.check()
            yield
        finally:
            self._raises = False

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
        if self._raises:
            self._raises = False  # the way out is not interrupted again
            self.check()

    def _watch(self, reader: socket.socket) -> None:
        """In a thread of its own, until the context is left."""
        first: float | None = None
        with reader:
            while (received := reader.recv(1)) not in (OVER, b""):
                now = time.monotonic()
                if received[0] not in HANDLED:
                    continue
                if first is None:
                    first = now
                elif now - first >= SAME:
                    self._end(received[0])

    def _end(self, number: int) -> None:
        for child in tuple(self.children):
            with suppress(ProcessLookupError):
                os.kill(child, number)
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h\n")  # a progress bar has hidden the cursor
        os._exit(128 + number)
