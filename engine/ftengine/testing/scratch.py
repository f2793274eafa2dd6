"""Where the kit's small runs are written: a temporary folder that does not outlast its process for long."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from ftengine.claim import claim
from ftengine.errors import CheckpointError

PREFIX = "ftengine-check-"


class Scratch:
    """A new temporary folder, `path`, held by this process until `cleanup`, or the end of the process.

    A process that is killed removes nothing. So whoever makes the next one removes those that no process holds.
    """

    def __init__(self) -> None:
        _remove_left()
        while True:
            self._folder = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
            self.path = Path(self._folder.name)
            self._held = ExitStack()
            try:
                self._held.enter_context(claim(self.path))
            except (CheckpointError, FileNotFoundError):
                continue  # another process was quicker, and took it for one that was left
            if self.path.exists():
                return

    def cleanup(self) -> None:
        """Remove the folder with all that is in it."""
        self._folder.cleanup()
        self._held.close()


def _remove_left() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            with claim(folder, surely=True):
                shutil.rmtree(folder, ignore_errors=True)
        except (CheckpointError, OSError):
            continue  # it is in use, or another user's
