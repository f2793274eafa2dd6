"""Checkpoints: folders of safetensors and JSON that become visible whole or not at all. No pickle.

``checkpoints/step-XXXXXXXX/`` holds ``model.safetensors`` (what evaluation used: the average, if there is one),
``training.safetensors`` (the weights in training, where they differ), ``optimizer.safetensors``, ``state.json`` and
``manifest.json`` with a SHA-256 of each file. ``checkpoints/last.json`` and ``best.json`` point at them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ftengine.errors import CheckpointError, name_list


@dataclass
class Snapshot:
    """What is to be saved. `training` is empty where it equals `model`."""

    model: Mapping[str, Tensor]
    training: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: Mapping[str, Any]


@dataclass
class Checkpoint:
    """What a checkpoint holds. `training` is empty where it equals `model`."""

    model: dict[str, Tensor]
    training: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]
    path: Path


class Store:
    """The checkpoints of one run directory."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"

    def save(self, step: int, snapshot: Snapshot, *, best: bool) -> Path:
        """Write a checkpoint, point ``last`` (and ``best``) at it, and only then remove what neither points at."""
        final = self.write(f"step-{step:08d}", snapshot)
        for pointer in ("last", "best") if best else ("last",):
            self.point(pointer, final)
        self.prune()
        return final

    def write(self, name: str, snapshot: Snapshot) -> Path:
        """Write a checkpoint's folder, which becomes visible whole; nothing points at it yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self.folder / name
        temporary = self.folder / f".writing-{final.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for kind in ("model", "training", "optimizer"):
            tensors: Mapping[str, Tensor] = getattr(snapshot, kind)
            if tensors or kind == "model":
                copies = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
                safetensors.torch.save_file(copies, temporary / f"{kind}.safetensors")
        _write_json(temporary / "state.json", snapshot.state)
        files = sorted(entry.name for entry in temporary.iterdir())
        _write_json(temporary / "manifest.json", {"sha256": {name: sha256(temporary / name) for name in files}})
        for entry in temporary.iterdir():
            sync(entry)
        sync(temporary)
        replaced = self.folder / f".replaced-{final.name}"
        if final.exists():  # left by a run that ended between this rename and the pointer's
            final.rename(replaced)
        temporary.rename(final)
        shutil.rmtree(replaced, ignore_errors=True)
        sync(self.folder)
        return final

    def point(self, pointer: str, checkpoint: Path) -> None:
        """Let ``last`` or ``best`` lead to a checkpoint that is on the disk."""
        temporary = self.folder / f".{pointer}.json"
        _write_json(temporary, {"checkpoint": checkpoint.name, "step": int(checkpoint.name.split("-")[1])})
        sync(temporary)
        temporary.rename(self.folder / f"{pointer}.json")
        sync(self.folder)

    def prune(self) -> None:
        """Remove the checkpoints that nothing points at, and what a killed run left half-written."""
        keep = {self.find(pointer) for pointer in ("last", "best")}
        # Folders with a dot were left by a run that was killed while it wrote them.
        for pattern in ("step-*", ".writing-*", ".replaced-*"):
            for entry in self.folder.glob(pattern):
                if entry not in keep:
                    shutil.rmtree(entry)

    def find(self, pointer: str) -> Path | None:
        """The folder that ``last`` or ``best`` points at, None where there is no such pointer."""
        file = self.folder / f"{pointer}.json"
        if not file.is_file():
            return None
        try:
            return self.folder / Path(json.loads(file.read_text())["checkpoint"]).name
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file} is damaged: {error}") from None

    def load(self, path: Path, *, for_training: bool) -> Checkpoint:
        """Read a checkpoint after verifying every file; `for_training`: with the optimizer's state."""
        manifest = _read_json(path / "manifest.json").get("sha256")
        if not isinstance(manifest, dict) or not {"model.safetensors", "state.json"} <= manifest.keys():
            raise CheckpointError(f"{path} is damaged: its manifest names no model or state")
        for name, digest in manifest.items():
            file = path / name
            if not file.is_file():
                raise CheckpointError(f"{path} is damaged: {name} is missing")
            if sha256(file) != digest:
                raise CheckpointError(f"{path} is damaged: {name} is not what was written (its SHA-256 differs)")

        def tensors(name: str) -> dict[str, Tensor]:
            return load_tensors(path / name) if name in manifest else {}

        return Checkpoint(
            tensors("model.safetensors"),
            tensors("training.safetensors") if for_training else {},
            tensors("optimizer.safetensors") if for_training else {},
            _read_json(path / "state.json"),
            path,
        )


def best_or_last(run: Path) -> Path:
    """The run's best checkpoint, or its last where none was the best yet."""
    store = Store(run)
    path = store.find("best") or store.find("last")
    if path is None or not path.is_dir():
        raise CheckpointError(f"{run} has no checkpoint: expected {store.folder / 'best.json'} or last.json")
    return path


def load_model(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy a checkpoint's tensors into `model`; raises CheckpointError unless they are exactly its own."""
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shapes = [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
    if missing or unexpected or shapes:
        raise CheckpointError(
            f"{path} does not fit the model; missing: {name_list(missing, 4)}; unexpected: {name_list(unexpected, 4)}; "
            f"of another shape: {name_list(shapes, 4)}"
        )
    model.load_state_dict(dict(tensors))


def load_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from None


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=1) + "\n")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} is damaged: expected a JSON object")
    return data


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
