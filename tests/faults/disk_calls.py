"""What a save asks of the disk, watched, interrupted, refused, and played back to a disk that loses power."""

import errno
import os
import random
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("open", "write", "fsync", "close", "rename", "replace", "mkdir", "unlink", "rmdir")


@contextmanager
def watched(before=None, after=None):
    """`before(name, arguments, options)` is told of every call of these functions of os, and may raise or end the
    process; `after` is told in the same way, and of the result, once it is done."""

    def watch(name, original):
        def call(*arguments, **options):
            if before is not None:
                before(name, arguments, options)
            result = original(*arguments, **options)
            if after is not None:
                after(name, arguments, options, result)
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            patch.setattr(os, name, watch(name, getattr(os, name)))
        yield


@contextmanager
def without_syncs():
    """A sync is not waited for: for tests that end processes, and not the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@contextmanager
def filling_up(room):
    """A disk with `room` bytes left: it takes what fits, and then nothing."""
    left = room
    original = os.write

    def write(descriptor, data):
        nonlocal left
        if left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = original(descriptor, bytes(data[:left]))
        left -= done
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write)
        yield


class File:
    """`content` is what programs read, `durable` what survives (None: it was never synced)."""

    def __init__(self, content=b"", durable=None):
        self.content = content
        self.durable = durable


class Folder:
    """`entries` is what programs see, `durable` what survives, `pending` what happened to names in between."""

    def __init__(self):
        self.entries = {}
        self.durable = {}
        self.pending = []


class Disk:
    """A model of a disk below `root`, on which only what was synced is sure to survive a loss of power.

    A name survives once its folder was synced, a file's content once the file was. Of what happened to names since,
    any part may be there, though a rename is there whole or not; and of a file's content since, any beginning.
    """

    def __init__(self, root):
        self.root = Path(root)
        self.top = self._read(self.root)
        self.open = {}

    def _read(self, path):
        if path.is_file():
            content = path.read_bytes()
            return File(content, content)
        folder = Folder()
        folder.entries = {entry.name: self._read(entry) for entry in path.iterdir()}
        folder.durable = dict(folder.entries)
        return folder

    def _find(self, path, options):
        """The folder that a path's last name is in, and that name; None for what is not below the root."""
        if options.get("dir_fd") is not None:
            folder = self.open.get(options["dir_fd"])
            return None if folder is None else (folder, str(path))
        path = Path(path)
        if not path.is_relative_to(self.root) or path == self.root:
            return None
        folder = self.top
        for part in path.relative_to(self.root).parts[:-1]:
            folder = folder.entries[part]
        return folder, path.name

    def _change(self, folder, *change):
        _apply(folder.entries, change)
        folder.pending.append(change)

    def __call__(self, name, arguments, options, result):
        """Take up one call; to be given to `watched` as `after`."""
        if name == "open":
            self._opened(Path(arguments[0]), arguments[1], options, result)
        elif name == "close":
            self.open.pop(arguments[0], None)
        elif name == "write" and arguments[0] in self.open:
            self.open[arguments[0]].content += bytes(arguments[1])[:result]
        elif name == "fsync" and arguments[0] in self.open:
            node = self.open[arguments[0]]
            if isinstance(node, File):
                node.durable = node.content
            else:
                node.durable, node.pending = dict(node.entries), []
        elif name in ("rename", "replace"):
            (folder, old), (target, new) = self._find(arguments[0], {}), self._find(arguments[1], {})
            assert folder is target, "from one folder to another: not modelled"
            self._change(folder, "rename", old, new)
        elif name in ("mkdir", "unlink", "rmdir"):
            found = self._find(arguments[0], options)
            if found is not None:
                folder, entry = found
                self._change(folder, *(("set", entry, Folder()) if name == "mkdir" else ("remove", entry)))

    def _opened(self, path, flags, options, descriptor):
        if options.get("dir_fd") is None and path == self.root:
            self.open[descriptor] = self.top
            return
        found = self._find(path, options)
        if found is None:
            return
        folder, name = found
        if name not in folder.entries:  # also what was written by other means and is opened to be synced
            made = File() if flags & os.O_CREAT else File(path.read_bytes())
            self._change(folder, "set", name, made)
        node = folder.entries[name]
        if isinstance(node, File):
            if flags & os.O_TRUNC:
                node.content = b""
            elif not flags & os.O_CREAT:
                node.content = path.read_bytes()
        self.open[descriptor] = node

    def after_power_loss(self, chance):
        """What is there after a loss of power, a dictionary of names a folder, for `write_tree`.

        `chance` is a `random.Random` that chooses what survives of all that was not synced, "none" of it, or "all" the
        names with half of their contents.
        """
        return _survivors(self.top, chance)


def write_tree(tree, to):
    """Write folders and files, as `Disk.after_power_loss` gives them, into the new folder `to`."""
    to.mkdir()
    for name, content in tree.items():
        if isinstance(content, dict):
            write_tree(content, to / name)
        else:
            (to / name).write_bytes(content)


def _survivors(folder, chance):
    entries = dict(folder.durable)
    for change in folder.pending:
        if chance == "all" or (isinstance(chance, random.Random) and chance.random() < 0.5):
            _apply(entries, change)
    return {
        name: _survivors(node, chance) if isinstance(node, Folder) else _surviving(node, chance)
        for name, node in entries.items()
    }


def _surviving(file, chance):
    if file.durable == file.content:
        return file.content
    if chance == "none":
        return file.durable or b""
    length = len(file.content) // 2 if chance == "all" else chance.randint(0, len(file.content))
    return file.content[:length]


def _apply(entries, change):
    kind, name, *rest = change
    if kind == "set":
        entries[name] = rest[0]
    elif kind == "remove":
        entries.pop(name, None)
    elif name in entries:
        entries[rest[0]] = entries.pop(name)
