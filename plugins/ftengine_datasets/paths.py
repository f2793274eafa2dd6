"""Where the files of a dataset are, and what to say where they are not."""

from __future__ import annotations

import os
from pathlib import Path

from ftengine.errors import DataError, nearest


def locate(root: Path, path: Path) -> Path:
    """`path`, absolute: from `root` where it is relative, with ``~`` for the home folder."""
    return (root.expanduser() / path.expanduser()).absolute()


def data_root(root: Path, folder: Path) -> Path:
    """The folder that no path in an annotation file may leave: `root`, or `folder` itself where it lies elsewhere."""
    top = _normal(locate(root, Path()))
    return top if _normal(folder).is_relative_to(top) else _normal(folder)


def inside(root: Path, folder: Path, name: str) -> Path:
    """The path that an annotation file means by `name`, from `folder`; `root` is what `data_root` returned.

    Raises ValueError where it is outside of `root`. The names alone are compared: what is a link inside of `root` may
    lead elsewhere, since whoever set it up wanted that.
    """
    if not name or "\0" in name:
        raise ValueError(f"{name!r} is no file name")
    path = _normal(folder / name)
    if not path.is_relative_to(root):
        raise ValueError(f"{name!r} points outside of the data root {root}")
    return path


def read_text(path: Path) -> str:
    """The text file `path`, with or without byte-order mark; raises DataError if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path))


def require(path: Path, split: str, *, folder: bool) -> None:
    """Raises DataError unless `path` is a folder, or a file; `split` names it in the message."""
    kind = "folder" if folder else "file"
    if path.is_dir() if folder else path.is_file():
        return
    if path.exists():
        raise DataError(f"{split}: {path} is a {'file' if folder else 'folder'}; expected a {kind}")
    above = path.parent
    if above.is_dir():
        near = nearest(path.name, sorted(entry.name for entry in above.iterdir()))
        hint = f"; did you mean {above / near}?" if near else ""
    else:
        while not above.is_dir():
            above = above.parent
        hint = f"; only {above} exists of it"
    raise DataError(f"{split}: no {kind} {path}{hint}")
