"""Several processes of one run, forked from this one: what is imported here they need not import.

Let a run in this process come first, which imports all that one needs.
"""

import os
import signal
import socket
import time
from dataclasses import dataclass

from forked import leave_after

DEADLINE = 120.0
"""Seconds in which processes have ended; a machine that is busy with other things has time enough."""


@dataclass
class Ended:
    """How one of the processes ended: its exit code, -9 if it was killed, and what it printed."""

    code: int
    stdout: str
    stderr: str


class Ranks:
    """`size` processes that call ``work()``, or ``ftengine`` with `arguments`; they print into `folder`."""

    def __init__(self, folder, size, *arguments, work=None, **environment):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **environment}
        self.ids = []
        for rank in range(size):
            own = {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
            child = os.fork()
            if child == 0:
                self._child(rank, own, work or (lambda: command(arguments)))
            self.ids.append(child)

    def _child(self, rank, environment, work):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.environ.update(environment)
        files = [self.folder / f"{name}-{rank}" for name in ("stdout", "stderr")]
        for file in files:
            file.unlink(missing_ok=True)
        leave_after(work, *files)

    def text(self, rank, name="stdout"):
        """What a process has printed so far."""
        file = self.folder / f"{name}-{rank}"
        return file.read_text() if file.exists() else ""

    def wait_for(self, rank, text):
        """Until a process has printed `text`."""
        end = time.monotonic() + DEADLINE
        while text not in self.text(rank):
            assert time.monotonic() < end, f"rank {rank} has not printed {text!r}:\n{self.text(rank)}"
            time.sleep(0.01)

    def ended(self):
        """Waits for all of them; fails, and kills what is left, where one has not ended in time."""
        end = time.monotonic() + DEADLINE
        codes = {}
        try:
            while len(codes) < len(self.ids):
                for rank, child in enumerate(self.ids):
                    if rank not in codes:
                        done, status = os.waitpid(child, os.WNOHANG)
                        if done:
                            codes[rank] = os.waitstatus_to_exitcode(status)
                assert time.monotonic() < end, f"still running: {set(range(len(self.ids))) - codes.keys()}"
                time.sleep(0.01)
        finally:
            for rank, child in enumerate(self.ids):
                if rank not in codes:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
        texts = ((self.text(rank), self.text(rank, "stderr")) for rank in range(len(self.ids)))
        return [Ended(codes[rank], *text) for rank, text in enumerate(texts)]


def command(arguments):
    """``ftengine`` with `arguments`."""
    from ftengine.cli import main

    main([str(argument) for argument in arguments], prog_name="ftengine")
