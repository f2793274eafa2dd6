"""Samples that cannot be read: which they are, how many there may be, and what is trained on in their place."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftengine import seeding
from ftengine.config_faults import BadSampleConfig
from ftengine.dist import World
from ftengine.errors import DataError
from ftengine.files import write_text
from ftengine.protocols import Dataset

FILE = "quarantine.jsonl"
SHOWN = 3
TOLD = 8

ATTEMPTS = 1000
"""So many samples are tried in the place of one. With nine in ten unreadable, none is found once in 1e45 times."""


@dataclass(frozen=True)
class BadSample:
    """A sample that cannot be read: its `index` in the split, its `id`, and why.

    `lasting`: it is the sample's own defect, not one of the machine, which another time may read it.
    """

    index: int
    id: str
    cause: str
    lasting: bool = True


class Quarantine:
    """The samples of one split that cannot be read, of which there may be so many.

    Each process that reads the split has a copy: `known` is what it need not try again. `noted` is the list of a
    process that trains, which `add` fills from what comes with the batches.
    """

    def __init__(self, stream: str, split: str, length: int, config: BadSampleConfig) -> None:
        self.stream = stream
        self.split = split
        self.length = length
        self.budget = config.budget
        # The small term: 0.07 of 100 is 7, though not in floating-point numbers.
        self.allowed = math.floor(config.budget * length + 1e-9 if config.budget < 1 else config.budget)
        self.known: dict[int, BadSample] = {}
        self.noted: dict[int, BadSample] = {}
        self._fresh: list[BadSample] = []
        self._journal: Journal | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For a worker, which only needs to know what it need not try."""
        return vars(self) | {"_journal": None}

    def add(self, found: Iterable[BadSample]) -> None:
        """Note those of `found` that are new. Raises DataError as soon as there are more than the budget allows."""
        for sample in found:
            if sample.index in self.noted:
                continue
            self.noted[sample.index] = self.known[sample.index] = sample
            self._fresh.append(sample)
            if self._journal is not None:
                self._journal.write(self, [sample])
                if _is_told(len(self.noted)):
                    self._journal.tell(f"{self._count()}: {sample.id}: {sample.cause}")
            self.check()

    def fresh(self) -> list[BadSample]:
        """What was added since this was last asked."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def open(self, journal: Journal) -> None:
        """Take what the run's list has of this split, and keep the list up to date from now on."""
        self._journal = journal
        listed = {sample.index: sample for sample in journal.of(self)}
        journal.write(self, [sample for index, sample in self.noted.items() if index not in listed])
        self.noted |= listed
        self.known |= self.noted
        if self.noted:
            journal.tell(f"{self._count()}; they are listed in {journal.file}")
        self.check()

    def _count(self) -> str:
        return f"{len(self.noted)} of at most {self.allowed} samples of {self._place()} in quarantine"

    def _place(self) -> str:
        return f"the {self.split} split" + (f" of {self.stream}" if self.stream else "")

    def check(self) -> None:
        """Raises DataError if there are more than the budget allows."""
        if len(self.noted) > self.allowed:
            raise DataError(self._over_budget())

    def _over_budget(self) -> str:
        lines = [
            f"{len(self.noted)} of the {self.length} samples of {self._place()} cannot be read, more than "
            f"train.on_bad_sample.budget {self.budget:g} allows ({self.allowed}):"
        ]
        lines += [f"  {sample.id}: {sample.cause}" for sample in list(self.noted.values())[:SHOWN]]
        if len(self.noted) > SHOWN:
            lines.append(f"  … and {len(self.noted) - SHOWN} more")
        if self._journal is not None:
            lines.append(f"all of them: {self._journal.file}")
        return "\n  ".join(lines)


def quarantine(config: BadSampleConfig, stream: str, split: str, data: Dataset) -> Quarantine | None:
    """The quarantine of a split, if the config wants one, with what its dataset found already.

    Raises DataError if that is more than the budget allows.
    """
    if config.policy == "error":
        return None
    made = Quarantine(stream, split, len(data), config)
    for index, cause in data.unreadable.items():
        made.noted[index] = made.known[index] = BadSample(index, data.sample_id(index), cause)
    made.check()
    return made


class Journal:
    """``quarantine.jsonl`` of a run: a line a sample, with `stream`, `split`, `index`, `id` and `cause`.

    A resumed run goes on with it: a sample that could not be read stays in quarantine, and is listed once.
    """

    def __init__(self, directory: Path, tell: Callable[[str], None], world: World | None = None) -> None:
        self.file = directory / FILE
        self.tell = tell
        self._world = world or World()
        self._splits: list[Quarantine] = []
        self._listed = self._world.from_main(self._read)

    def follow(self, split: Quarantine) -> None:
        """Take what the list has of a split, and keep it up to date from now on."""
        self._splits.append(split)
        split.open(self)

    def share(self) -> None:
        """Tell the other processes of the run what this one has met, and be told; all of them call this."""
        if self._world.size == 1 or not self._splits:
            return
        found = self._world.gather([split.fresh() for split in self._splits])
        for split, *lists in zip(self._splits, *found, strict=True):
            for samples in lists:
                split.add(samples)
            split.fresh()

    def of(self, split: Quarantine) -> list[BadSample]:
        """What the list has of a split."""
        return [
            BadSample(entry["index"], entry["id"], entry["cause"])
            for entry in self._listed
            if (entry["stream"], entry["split"]) == (split.stream, split.split) and 0 <= entry["index"] < split.length
        ]

    def write(self, split: Quarantine, samples: Sequence[BadSample]) -> None:
        """Add a line for each of `samples`; they are on the disk when this returns."""
        if not samples or not self._world.main:
            return
        place = {"stream": split.stream, "split": split.split}
        rows = [{**place, "index": sample.index, "id": sample.id, "cause": sample.cause} for sample in samples]
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(row) + "\n" for row in rows))
            stream.flush()
            os.fsync(stream.fileno())

    def _read(self) -> list[dict[str, Any]]:
        """The lines of the file; one that was cut off, as the run was killed, is taken away."""
        if not self.file.is_file():
            return []
        text = self.file.read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines()
        entries = [entry for line in lines if (entry := _entry(line)) is not None]
        if len(entries) < len(lines) or not text.endswith("\n"):
            write_text(self.file, "".join(json.dumps(entry) + "\n" for entry in entries))
        return entries


def _is_told(count: int) -> bool:
    """Whether the sample that makes it so many is worth a line on the console: the first ones, then ever fewer."""
    return count <= TOLD or count & (count - 1) == 0


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    types = {"stream": str, "split": str, "index": int, "id": str, "cause": str}
    if not isinstance(entry, dict) or not all(type(entry.get(key)) is kind for key, kind in types.items()):
        return None
    return {key: entry[key] for key in types}


def replacement(seed: int, stream: str, epoch: int, index: int, attempt: int, length: int) -> int:
    """Which of `length` samples is tried in the place of sample `index`, which cannot be read.

    A function of its arguments alone: another number of workers, and a resumed run, try the same ones. `attempt`
    counts from 1.
    """
    return seeding.derive(seed, "replace", stream, epoch, index, attempt) % length
