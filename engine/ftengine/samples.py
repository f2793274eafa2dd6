"""Which samples a run is made of: what a resume compares, and can name.

A checkpoint holds a fingerprint of each split; ``samples/<stream>-<split>.jsonl`` in the run directory, written at the
start, has a line for each sample, so that what has changed can be said by name. Pixels are not compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ftengine.errors import name_list
from ftengine.files import whole
from ftengine.protocols import Dataset

SHOWN = 4
"""How many names a message gives of each kind of difference."""


def record(directory: Path, stream: str, split: str, data: Dataset, fingerprint: str) -> None:
    """Write the list of a split's samples, one JSON line each: ``[id, digest of its target]``; if it is not there."""
    file = _file(directory, stream, split)
    if _read(file, fingerprint) is not None:
        return
    with whole(file) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.write(json.dumps({"fingerprint": fingerprint, "samples": len(data)}) + "\n")
        for index in range(len(data)):
            out.write(json.dumps([data.sample_id(index), target_digest(data, index)]) + "\n")


def target_digest(data: Dataset, index: int) -> str:
    """A hash of a sample's target fields, 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(data.target(index).items()):
        digest.update(name.encode() + b"\n" + np.asarray(value).tobytes() + b"\n")
    return digest.hexdigest()


def what_changed(directory: Path, stream: str, split: str, data: Dataset | None, fingerprint: str) -> str:
    """What differs between a split now and as it was recorded when its fingerprint was `fingerprint`.

    Where the list is not there, or is another's, only the number now is said. Of samples that cannot be read now, the
    target need not be the same: it may depend on the image's size. The text is empty where that is all.
    """
    if data is None:
        return "the split is not there any more"
    before = _read(_file(directory, stream, split), fingerprint)
    if before is None:
        return f"there are {len(data):,} samples now; the run directory has no list of those before"
    now = {data.sample_id(index): target_digest(data, index) for index in range(len(data))}
    lost = {data.sample_id(index) for index in data.unreadable}
    now |= {name: before[name] for name in lost & before.keys()}
    if lost and len(now) == len(data) and list(now.items()) == list(before.items()):
        return ""
    both = now.keys() & before.keys()
    found = {
        "added": now.keys() - both,
        "removed": before.keys() - both,
        "with another target": {name for name in both if now[name] != before[name]},
    }
    said = [f"{len(names):,} {kind}: {name_list(names, SHOWN)}" for kind, names in found.items() if names]
    return "; ".join(said) or "the same samples come in another order, or one of them more than once"


def state_changes(before: Any, now: Any, place: str = "") -> list[str]:
    """Where two states of a task (JSON data) differ; names that were added, removed or renumbered are told apart."""
    if before == now:
        return []
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [*before, *(key for key in now if key not in before)]
        found = [state_changes(before.get(key), now.get(key), f"{place}.{key}".lstrip(".")) for key in keys]
        return [line for lines in found for line in lines]
    if _are_names(before) and _are_names(now):
        return [f"{place}: {text}" for text in _name_changes(before, now)]
    return [f"{place}: the run has {_short(before)}, now it is {_short(now)}"]


def _name_changes(before: Sequence[str], now: Sequence[str]) -> list[str]:
    places = [{name: index for index, name in enumerate(names)} for names in (before, now)]
    moved = [name for name in now if name in places[0] and places[0][name] != places[1][name]]
    found = {
        "added": [name for name in now if name not in places[0]],
        "removed": [name for name in before if name not in places[1]],
        "renumbered": [f"{name} ({places[0][name]} -> {places[1][name]})" for name in moved],
    }
    return [f"{kind}: {name_list(names, SHOWN)}" for kind, names in found.items() if names]


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _file(directory: Path, stream: str, split: str) -> Path:
    return directory / "samples" / f"{stream}-{split}.jsonl"


def _read(file: Path, fingerprint: str) -> dict[str, str] | None:
    """A list that was written, or None where it is missing, damaged, or of other samples."""
    try:
        head, *lines = file.read_text(encoding="utf-8").splitlines()
        header = json.loads(head)
        found = [json.loads(line) for line in lines]
        if header["fingerprint"] != fingerprint or header["samples"] != len(found):
            return None
        return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        return None
