"""The `folder` dataset: a folder a split, in it a folder a class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ftengine.errors import DataError, name_list
from ftengine.images import EXTENSIONS, check_images, find_images, is_hidden, read_image
from ftengine.protocols import Dataset, DatasetContext
from ftengine_datasets.options import FolderOptions
from ftengine_datasets.paths import locate, require


class ImageFolder(Dataset):
    """The images of one split: `files` relative to `folder`, and the index of each one's class in `classes`."""

    def __init__(
        self,
        folder: Path,
        files: list[str],
        labels: np.ndarray,
        classes: tuple[str, ...],
        unreadable: Mapping[int, str],
    ) -> None:
        self.names = {"label": classes}
        self.unreadable = unreadable
        self._folder = folder
        self._files = files
        self._labels = labels

    def __len__(self) -> int:
        return len(self._files)

    def target(self, index: int) -> dict[str, Any]:
        return {"label": int(self._labels[index])}

    def image(self, index: int) -> np.ndarray:
        return read_image(self._folder / self._files[index])

    def sample_id(self, index: int) -> str:
        """``<split folder>/<class>/<file>``, which does not tell where on this machine the data are."""
        return f"{self._folder.name}/{self._files[index]}"


def folder(options: FolderOptions, context: DatasetContext) -> ImageFolder:
    """The split that `context` names; its classes are its folders, sorted by name.

    Raises DataError for a missing folder, one without class folders, an empty class folder, and unreadable images if
    they are not tolerated.
    """
    path = locate(options.root, getattr(options, context.split))
    require(path, context.split, folder=True)
    classes = tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not is_hidden(entry.name)))
    if not classes:
        stray = find_images(path)
        holds = f"{len(stray)} images lie directly in it" if stray else "it has no images either"
        raise DataError(f"{context.split}: {path} has no class folders (<class>/<image>); {holds}")
    found = [find_images(path / name) for name in classes]
    empty = [name for name, images in zip(classes, found, strict=True) if not images]
    if empty:
        what = "class folder is" if len(empty) == 1 else f"{len(empty)} class folders are"
        raise DataError(
            f"{context.split}: {what} empty in {path}: {name_list(empty)}; "
            f"expected images ({', '.join(EXTENSIONS)}) in each"
        )
    paths = [image for images in found for image in images]
    unreadable = check_images(paths, context.split, tolerant=context.tolerant) if options.verify else {}
    labels = np.repeat(np.arange(len(classes)), [len(images) for images in found])
    return ImageFolder(path, [image.relative_to(path).as_posix() for image in paths], labels, classes, unreadable)
