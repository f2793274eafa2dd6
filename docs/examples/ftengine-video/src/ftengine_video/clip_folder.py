"""Clips from files: a folder a split, in it a folder a class, in it a folder or an animation for each video."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ftengine.errors import DataError, name_list, nearest
from ftengine.images import EXTENSIONS, is_hidden, read_image, verify_images
from ftengine.protocols import Dataset, DatasetContext
from ftengine_video.options import ClipFolderOptions

ANIMATIONS = (".gif", ".png", ".webp")
FORMATS = ("GIF", "PNG", "WEBP")
"""Files that may hold several frames, by their suffix and by Pillow's name."""

HINT = "ffmpeg -i VIDEO FOLDER/%05d.jpg makes a folder of frames of a video"


class ClipFolder(Dataset):
    """The videos of one split: `videos`, folders or files, and the index of each one's class in `classes`."""

    def __init__(
        self,
        root: Path,
        videos: list[Path],
        labels: list[int],
        classes: tuple[str, ...],
        options: ClipFolderOptions,
        unreadable: Mapping[int, str],
        notes: list[str],
    ) -> None:
        self.names = {"label": classes}
        self.unreadable = unreadable
        self.notes = notes
        self._root = root
        self._videos = videos
        self._labels = labels
        self._options = options

    def __len__(self) -> int:
        return len(self._videos)

    def target(self, index: int) -> dict[str, Any]:
        return {"label": self._labels[index]}

    def sample_id(self, index: int) -> str:
        """``<split folder>/<class>/<video>``."""
        return f"{self._root.name}/{self._videos[index].relative_to(self._root).as_posix()}"

    def image(self, index: int) -> np.ndarray:
        """uint8 [T, H, W, 3]."""
        video = self._videos[index]
        frames = _of_folder(video, self._options) if video.is_dir() else _of_animation(video, self._options)
        sizes = {frame.shape[:2] for frame in frames}
        if len(sizes) > 1:
            different = " and ".join(f"{height}x{width}" for height, width in sorted(sizes))
            raise DataError(f"{video}: its frames are of different sizes: {different}")
        return np.stack(frames)


def clip_folder(options: ClipFolderOptions, context: DatasetContext) -> ClipFolder:
    """The split that `context` names; its classes are its folders, sorted by name.

    Raises DataError for a missing folder, one without class folders, an empty class folder, and, if they are not
    tolerated, videos without frames or with frames that are no images.
    """
    root = (options.root.expanduser() / getattr(options, context.split).expanduser()).absolute()
    if not root.is_dir():
        near = nearest(root.name, [path.name for path in _entries(root.parent)]) if root.parent.is_dir() else None
        raise DataError(
            f"{context.split}: no folder {root}" + (f"; did you mean {root.parent / near}?" if near else "")
        )
    folders = [path for path in _entries(root) if path.is_dir()]
    if not folders:
        raise DataError(f"{context.split}: {root} has no class folders (<class>/<video>/<frame>, <class>/<video>.gif)")
    found = [[path for path in _entries(folder) if _is_video(path)] for folder in folders]
    others = [path for folder in folders for path in _entries(folder) if not _is_video(path)]
    empty = [folder.name for folder, videos in zip(folders, found, strict=True) if not videos]
    if empty:
        raise DataError(
            f"{context.split}: no clips in {name_list(empty)} of {root}; expected folders of frames, or animations "
            f"({', '.join(ANIMATIONS)})" + (f"; {HINT}" if others else "")
        )
    videos = [path for own in found for path in own]
    causes = {index: cause for index, video in enumerate(videos) if (cause := _fault(video))}
    if causes and not context.tolerant:
        first, more = next(iter(causes.values())), len(causes) - 1
        raise DataError(f"{context.split}: {first}" + (f" (and {more} more)" if more else ""))
    labels = [label for label, own in enumerate(found) for _ in own]
    notes = []
    if others:
        notes.append(f"{context.split}: left out, as they are no clips: {len(others)}, first {others[0]}; {HINT}")
    classes = tuple(folder.name for folder in folders)
    return ClipFolder(root, videos, labels, classes, options, causes, notes)


def chosen(count: int, options: ClipFolderOptions) -> list[int]:
    """Which frames of a video of `count` make its clip; what is beyond its end is its last frame again."""
    if options.stride is None:
        return [(2 * place + 1) * count // (2 * options.frames) for place in range(options.frames)]
    start = max(0, (count - 1 - (options.frames - 1) * options.stride) // 2)
    return [min(start + place * options.stride, count - 1) for place in range(options.frames)]


def in_order(path: Path) -> list[tuple[str, int]]:
    """A key by which ``2.jpg`` comes before ``10.jpg``."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", path.name)]


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name))


def _is_video(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in ANIMATIONS


def _frames(video: Path) -> list[Path]:
    return sorted((path for path in _entries(video) if path.suffix.lower() in EXTENSIONS), key=in_order)


def _fault(video: Path) -> str | None:
    """Why a video cannot be read, as far as its headers tell."""
    frames = _frames(video) if video.is_dir() else [video]
    if not frames:
        return f"{video} holds no frames; expected images ({', '.join(EXTENSIONS)})"
    if bad := verify_images(frames):
        return f"cannot read image {bad[0][0]}: {bad[0][1]}"
    if not video.is_dir():
        with Image.open(video, formats=FORMATS) as image:
            if not getattr(image, "is_animated", False):
                return f"{video} is a single image; expected an animation, or a folder of frames"
    return None


def _of_folder(video: Path, options: ClipFolderOptions) -> list[np.ndarray]:
    files = _frames(video)
    if not files:
        raise DataError(f"{video} holds no frames any more")
    read = {index: read_image(files[index]) for index in sorted(set(chosen(len(files), options)))}
    return [read[index] for index in chosen(len(files), options)]


def _of_animation(video: Path, options: ClipFolderOptions) -> list[np.ndarray]:
    try:
        with Image.open(video, formats=FORMATS) as image:
            wanted = chosen(getattr(image, "n_frames", 1), options)
            read = dict(_decoded(image, sorted(set(wanted))))
    # Decoders meet a broken file with exceptions of many types.
    except Exception as error:
        raise DataError(f"cannot read {video}: {str(error) or type(error).__name__}") from error
    return [read[index] for index in wanted]


def _decoded(image: Image.Image, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Frames as a viewer shows them: what is transparent is white."""
    for index in wanted:
        image.seek(index)
        layer = image.convert("RGBA")
        yield index, np.array(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"))
