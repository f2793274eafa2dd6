"""Files and folders that survive a loss of power, and the room that there is for them.

What must not be lost is written beside its place and synced, takes its place by one rename, and then its folder is
synced: at every moment there is either what was there before or the new file, whole. All bytes and names go through
the functions of :mod:`os`, which release the interpreter's lock, so that a thread can write while a model trains.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ftengine.errors import TrainingError

CHUNK = 4 << 20
"""Bytes that are hashed and written at once: small parts together, large ones cut."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError that does not say of which file it is, as those of a full disk, is raised as one of `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def write(path: Path, parts: Iterable[bytes | memoryview]) -> str:
    """Write a file and sync it; returns the SHA-256 of its content. `parts` are contiguous, of bytes."""
    digest = hashlib.sha256()
    with naming(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
        try:
            for chunk in _chunks(parts):
                digest.update(chunk)
                left = memoryview(chunk)
                while len(left):  # a disk that is nearly full takes less than it is given, before it takes nothing
                    left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return digest.hexdigest()


def publish(path: Path, parts: Iterable[bytes | memoryview]) -> str:
    """Put a file in its place, or in that of an older one, whole and durably; returns its SHA-256."""
    temporary = path.with_name(f".{path.name}")
    try:
        digest = write(temporary, parts)
        temporary.rename(path)
        sync(path.parent)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    return digest


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    with naming(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those it is in, durably; one that exists is left as it is."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, as far as that is possible.

    What remains, for example because another process reads it on a file system that does not allow that, is not worth
    a run.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def require(folder: Path, needed: int, what: str) -> None:
    """Raises TrainingError unless `needed` bytes are free where `folder` is, or will be; `what` needs them."""
    place = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise TrainingError(f"{folder}: {error.strerror}") from None
    if free < needed:
        raise TrainingError(
            f"{folder}: {what} needs {size_text(needed)}, and only {size_text(free)} of the disk are free"
        )


def require_writable(folder: Path) -> None:
    """Raises TrainingError unless `folder` is, or can be made, a folder to write to."""
    place = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    if not place.is_dir():
        raise TrainingError(f"{folder} cannot be made: {place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise TrainingError(f"{folder} cannot be written to: {place} is read-only for this user")


def size_text(count: int) -> str:
    """`count` bytes for a person: in MB below 1 GB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _chunks(parts: Iterable[bytes | memoryview]) -> Iterator[bytes | bytearray | memoryview]:
    waiting = bytearray()
    for part in parts:
        if len(waiting) + len(part) <= CHUNK:
            waiting += part
            continue
        if waiting:
            yield waiting
            waiting = bytearray()
        view = memoryview(part)
        whole = len(view) - len(view) % CHUNK
        yield from (view[start : start + CHUNK] for start in range(0, whole, CHUNK))
        waiting += view[whole:]
    if waiting:
        yield waiting
