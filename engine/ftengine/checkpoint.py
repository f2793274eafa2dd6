"""Checkpoints: folders of safetensors and JSON that become visible whole or not at all. No pickle.

``checkpoints/step-XXXXXXXX/`` holds ``model.safetensors`` (what evaluation used: the average, if there is one),
``training.safetensors`` (the weights in training, where they differ), ``optimizer.safetensors``, ``state.json`` and
``manifest.json`` with a SHA-256 of each file. ``checkpoints/last.json`` and ``best.json`` point at them.

A folder is written under a name with a dot, synced file by file, and renamed once; then the pointers are, in the same
way; and only then is anything removed. So at every moment each pointer leads to a whole checkpoint, and what a killed
or powerless process left behind goes with the next save.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ftengine.disk import publish, remove, sync, write
from ftengine.errors import CheckpointError, TrainingError, name_list
from ftengine.tensor_file import encode, load_tensors

NAME = re.compile(r"step-(\d{8,12})(-mixed)?")
"""Folders of checkpoints; a mixture of weights cannot be trained on."""
WRITING, REPLACED = ".writing-", ".replaced-"
HALF_POINTERS = (".last.json", ".best.json")  # of a process that was killed in `point`
TENSORS = ("model", "training", "optimizer")
FILES = {"state.json", *(f"{kind}.safetensors" for kind in TENSORS)}


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
    """The checkpoints of one run directory; the `keep` latest stay, beside the best."""

    def __init__(self, run: Path, keep: int = 1) -> None:
        self.run = run
        self.keep = keep
        self.folder = run / "checkpoints"

    # --- writing -------------------------------------------------------------------------------------------------

    def save(self, step: int, snapshot: Snapshot, *, best: bool) -> Path:
        """Write a checkpoint, point ``last`` (and ``best``) at it, and only then remove what is not kept."""
        for log in self.run.glob("*.jsonl"):  # what is told of the steps until here is not to be lost after them
            sync(log)
        final = self.write(f"step-{step:08d}", snapshot)
        for pointer in ("last", "best") if best else ("last",):
            self.point(pointer, final)
        self.prune()
        return final

    def write(self, name: str, snapshot: Snapshot) -> Path:
        """Write a checkpoint's folder, which becomes visible whole; nothing points at it yet.

        Raises TrainingError, and leaves nothing behind, if the disk does not take it.
        """
        final, temporary = self.folder / name, self.folder / f"{WRITING}{name}"
        try:
            if not self.folder.exists():
                self.folder.mkdir()  # not its parents: a run directory that has vanished is not made anew
                sync(self.run)
            remove(temporary)
            temporary.mkdir()
            digests = {}
            for kind in TENSORS:
                tensors: Mapping[str, Tensor] = getattr(snapshot, kind)
                if tensors or kind == "model":
                    file = f"{kind}.safetensors"
                    digests[file] = write(temporary / file, encode(tensors))
            digests["state.json"] = write(temporary / "state.json", _as_json(snapshot.state))
            write(temporary / "manifest.json", _as_json({"sha256": digests}))
            sync(temporary)
            if final.exists():
                # A pointer may lead there. Between these two renames `find` takes it for what it was.
                replaced = self.folder / f"{REPLACED}{name}"
                remove(replaced)
                final.rename(replaced)
                sync(self.folder)
            temporary.rename(final)
            sync(self.folder)
        except OSError as error:
            remove(temporary)
            raise TrainingError(f"the checkpoint {final} could not be written: {_reason(error)}") from None
        return final

    def point(self, pointer: str, checkpoint: Path) -> None:
        """Let ``last`` or ``best`` lead to a checkpoint that is on the disk."""
        file = self.folder / f"{pointer}.json"
        name = checkpoint.name.removeprefix(REPLACED)
        try:
            publish(file, _as_json({"checkpoint": name, "step": step_of(checkpoint)}))
        except OSError as error:
            raise TrainingError(f"{file} could not be written: {_reason(error)}") from None

    def unpoint(self, pointer: str) -> None:
        """Let ``last`` or ``best`` lead nowhere."""
        (self.folder / f"{pointer}.json").unlink(missing_ok=True)
        sync(self.folder)

    def prune(self) -> None:
        """Remove the checkpoints that are not kept, and what a killed run left half-written."""
        try:
            last, best = self.find("last"), self.find("best")
        except CheckpointError:  # nobody knows where it leads, so nothing goes
            return
        past = [path for path in self.paths() if last is not None and step_of(path) <= step_of(last)]
        keep = {last, best, self.rollback_of(last), *past[: self.keep]}
        for entry in self.folder.iterdir():
            ours = NAME.fullmatch(entry.name) or entry.name.startswith((WRITING, REPLACED, *HALF_POINTERS))
            if ours and entry not in keep:
                remove(entry)

    def rollback_of(self, path: Path | None) -> Path | None:
        """The checkpoint that the run of checkpoint `path` goes back to when its numbers break, if it may."""
        try:
            step = None if path is None else _read_json(path / "state.json").get("rollback_to")
        except CheckpointError:
            return None
        return self.present(f"step-{step:08d}") if isinstance(step, int) else None

    # --- finding -------------------------------------------------------------------------------------------------

    def find(self, pointer: str) -> Path | None:
        """The folder that ``last`` or ``best`` points at, None where there is no such pointer.

        Raises CheckpointError for a pointer that is damaged; whether the folder is there and whole is seen by `load`.
        """
        file = self.folder / f"{pointer}.json"
        if not file.is_file():
            return None
        data = _read_json(file)
        name = data.get("checkpoint")
        if not isinstance(name, str) or not NAME.fullmatch(name) or data.get("step") != step_of(Path(name)):
            raise CheckpointError(f"{file} is damaged: it names no checkpoint")
        return self.present(name)

    def paths(self) -> list[Path]:
        """The folders of all checkpoints that training can continue from, whole or not, the newest first."""
        if not self.folder.is_dir():
            return []
        names = {entry.name.removeprefix(REPLACED) for entry in self.folder.iterdir() if entry.is_dir()}
        found = [self.present(name) for name in names if (match := NAME.fullmatch(name)) and not match[2]]
        return sorted(found, key=step_of, reverse=True)

    def present(self, name: str) -> Path:
        path, replaced = self.folder / name, self.folder / f"{REPLACED}{name}"
        return replaced if replaced.exists() and not path.exists() else path

    # --- reading -------------------------------------------------------------------------------------------------

    def load(self, path: Path, *, for_training: bool) -> Checkpoint:
        """Read a checkpoint after verifying every file; `for_training`: with the optimizer's state.

        Raises CheckpointError, which names the nearest one that is whole, if it is damaged.
        """
        try:
            return self.read(path, for_training=for_training)
        except CheckpointError as error:
            raise CheckpointError(f"{error}\n  {self.advice(path)}") from None

    def read(self, path: Path, *, for_training: bool) -> Checkpoint:
        """`load` without advice."""
        names = self.verify(path)

        def tensors(kind: str) -> dict[str, Tensor]:
            return load_tensors(path / f"{kind}.safetensors") if f"{kind}.safetensors" in names else {}

        state = _read_json(path / "state.json")
        if for_training and state.get("step") != step_of(path):
            raise CheckpointError(f"{path} is damaged: its state is that of step {state.get('step')!r}")
        kinds = TENSORS if for_training else ("model",)
        loaded = {kind: tensors(kind) if kind in kinds else {} for kind in TENSORS}
        return Checkpoint(**loaded, state=state, path=path)

    def verify(self, path: Path) -> set[str]:
        """The files of a checkpoint; raises CheckpointError unless each is what was written."""
        if not path.is_dir():
            raise CheckpointError(f"{path} is missing")
        manifest = _read_json(path / "manifest.json").get("sha256")
        if not isinstance(manifest, dict) or not {"model.safetensors", "state.json"} <= manifest.keys():
            raise CheckpointError(f"{path} is damaged: its manifest names no model or state")
        if not manifest.keys() <= FILES:
            raise CheckpointError(f"{path} is damaged: its manifest names {name_list(manifest.keys() - FILES, 3)}")
        for name, digest in manifest.items():
            file = path / name
            if not file.is_file():
                raise CheckpointError(f"{path} is damaged: {name} is missing")
            try:
                found = sha256(file)
            except OSError as error:
                raise CheckpointError(f"{path} is damaged: {name} cannot be read: {error.strerror}") from None
            if found != digest:
                raise CheckpointError(f"{path} is damaged: {name} is not what was written (its SHA-256 differs)")
        return set(manifest)

    def is_whole(self, path: Path) -> bool:
        """Whether `load` would read it."""
        try:
            self.verify(path)
        except CheckpointError:
            return False
        return True

    def advice(self, damaged: Path | None) -> str:
        """What to do about a checkpoint that is damaged, or (None) a pointer."""
        others = [path for path in self.paths() if path != damaged]
        if damaged is not None and NAME.search(damaged.name):
            others.sort(key=lambda path: abs(step_of(path) - step_of(damaged)))  # stable: of two the newer first
        nearest = next((path for path in others if self.is_whole(path)), None)
        if nearest is None:
            return "no other checkpoint of the run is whole"
        return (
            f"the nearest whole one is {nearest.name}: `ftengine run --resume {self.run}` continues from the newest "
            "whole one, and makes the best of those that are whole the best"
        )


def step_of(path: Path) -> int:
    """The step of a checkpoint's folder."""
    match = NAME.search(path.name)
    if match is None:
        raise CheckpointError(f"{path} is no checkpoint: expected a folder like step-00000012")
    return int(match[1])


def best_or_last(run: Path) -> Path:
    """The run's best checkpoint, or its last where none was the best yet."""
    store = Store(run)
    try:
        path = store.find("best") or store.find("last")
    except CheckpointError as error:
        raise CheckpointError(f"{error}\n  {store.advice(None)}") from None
    if path is None:
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


def _as_json(data: Mapping[str, Any]) -> list[bytes]:
    return [json.dumps(data, indent=1).encode() + b"\n"]


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} is damaged: expected a JSON object")
    return data


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
