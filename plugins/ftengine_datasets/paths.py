"""Where the files of a dataset are, and what to say where they are not."""

from __future__ import annotations

from pathlib import Path

from ftengine.errors import DataError, nearest


def locate(root: Path, path: Path) -> Path:
    """`path`, absolute: from `root` where it is relative, with ``~`` for the home folder."""
    return (root.expanduser() / path.expanduser()).absolute()


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
