"""Parts of a dataset as datasets: what is held out for evaluation, and whether data are the same as before."""

from __future__ import annotations

import hashlib

import numpy as np

from ftengine import seeding
from ftengine.errors import DataError
from ftengine.protocols import Dataset, Target


class Subset(Dataset):
    """Some samples of a dataset, as a dataset."""

    def __init__(self, data: Dataset, indices: np.ndarray) -> None:
        self.data = data
        self.indices = indices
        self.names = data.names
        self.ids = data.ids
        self.notes = data.notes
        if data.unreadable:
            self.unreadable = {
                place: data.unreadable[index]
                for place, index in enumerate(indices.tolist())
                if index in data.unreadable
            }

    def __len__(self) -> int:
        return len(self.indices)

    def target(self, index: int) -> Target:
        return self.data.target(int(self.indices[index]))

    def image(self, index: int) -> np.ndarray:
        return self.data.image(int(self.indices[index]))

    def sample_id(self, index: int) -> str:
        return self.data.sample_id(int(self.indices[index]))

    def mask(self, index: int) -> np.ndarray:
        return self.data.mask(int(self.indices[index]))

    def size(self, index: int) -> tuple[int, int] | None:
        return self.data.size(int(self.indices[index]))


def hold_out(
    data: Dataset, fraction: float, seed: int, strata: np.ndarray | None, what: str
) -> tuple[Dataset, Dataset]:
    """Split `data` in two, (rest, held out), the same way for the same seed; strata keep their proportions.

    Strata with a single sample stay in the rest. Raises DataError where a side would be empty.
    """
    held = round(len(data) * fraction)
    if not 0 < held < len(data):
        raise DataError(
            f"{what}_fraction {fraction} of {len(data)} samples leaves no sample on one side; "
            f"give `data.{what}`, another fraction, or more data"
        )
    generator = np.random.default_rng(seeding.derive(seed, "hold-out", what))
    order = generator.permutation(len(data))
    if strata is not None:
        order = _interleave(order, strata)
    return Subset(data, np.sort(order[held:])), Subset(data, np.sort(order[:held]))


def _interleave(order: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Reorder so that every prefix holds each stratum in proportion, to within one sample."""
    position = np.empty(len(order))
    for stratum in np.unique(strata):
        members = order[strata[order] == stratum]
        # The k-th of n members stands at (k + 1/2) / n of the way; a lone member goes to the end, out of the held part.
        spread = (np.arange(len(members)) + 0.5) / len(members) if len(members) > 1 else np.array([1.0])
        position[members] = spread
    ranks = np.lexsort((np.argsort(order), position))
    return np.asarray(ranks)


def fingerprint(data: Dataset) -> str:
    """A hash of ids and targets in order: another hash on resume means that the data have changed."""
    digest = hashlib.sha256()
    for index in range(len(data)):
        digest.update(data.sample_id(index).encode(errors="surrogateescape") + b"\n")
        for name, value in sorted(data.target(index).items()):
            digest.update(name.encode() + b"\n" + np.asarray(value).tobytes() + b"\n")
    return digest.hexdigest()
