"""Whether two run directories hold the same to the last bit, and if not, where they part."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftengine.checkpoint import Store
from ftengine.errors import CheckpointError
from ftengine.tensor_file import map_tensors

TIMES = frozenset({"elapsed", "seconds", "since_logged", "peak_memory", "images_per_second"})
"""What is measured and not computed: values of state.json and metrics.jsonl that differ from run to run."""
KINDS = ("model", "training", "optimizer")


@dataclass(frozen=True)
class Difference:
    """`place` is a file of a run, `name` what in it differs, `text` by how much."""

    place: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.name}: {self.text}"


@dataclass
class Comparison:
    """What was compared, and what differs, in order."""

    tensors: int = 0
    values: int = 0
    lines: int = 0
    differences: list[Difference] = field(default_factory=list)

    def add(self, place: str, name: str, text: str) -> None:
        self.differences.append(Difference(place, name, text))


def compare_runs(ours: Path, theirs: Path) -> Comparison:
    """Compare the last checkpoints and the metrics of two runs; every tensor bit by bit, times left out.

    Raises CheckpointError where one has no checkpoint or it is damaged.
    """
    result = Comparison()
    pair = [_last(ours), _last(theirs)]
    if pair[0].name != pair[1].name:
        result.add("checkpoints", "last", f"{pair[0].name} and {pair[1].name}")
        return result
    for kind in KINDS:
        found = [map_tensors(file) if (file := path / f"{kind}.safetensors").is_file() else {} for path in pair]
        _compare_tensors(f"{kind}.safetensors", found[0], found[1], result)
    states = [dict(_flat(json.loads((path / "state.json").read_text()), "")) for path in pair]
    for name in dict.fromkeys([*states[0], *states[1]]):
        result.values += 1
        if _text(states[0], name) != _text(states[1], name):
            result.add("state.json", name, f"{_text(states[0], name)} and {_text(states[1], name)}")
    _compare_metrics(ours, theirs, result)
    return result


def tensor_difference(ours: Tensor, theirs: Tensor) -> str | None:
    """How two tensors differ, or None where they are the same bit for bit; NaN of the same bits is the same."""
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return f"{_kind(ours)} and {_kind(theirs)}"
    bits = [tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (ours, theirs)]
    if torch.equal(bits[0], bits[1]):
        return None
    apart = (bits[0] != bits[1]).reshape(ours.numel(), -1).any(1)
    gap = (ours.detach().cpu().double() - theirs.detach().cpu().double()).abs().max()
    return f"{int(apart.sum()):,} of {ours.numel():,} elements, by up to {float(gap):.3g}"


def _compare_tensors(place: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], result: Comparison) -> None:
    for name in dict.fromkeys([*ours, *theirs]):
        result.tensors += 1
        if name not in ours or name not in theirs:
            result.add(place, name, "only in one of them")
        elif text := tensor_difference(ours[name], theirs[name]):
            result.add(place, name, text)


def _compare_metrics(ours: Path, theirs: Path, result: Comparison) -> None:
    pair = [metric_lines(directory) for directory in (ours, theirs)]
    for number in range(max(map(len, pair))):
        result.lines += 1
        if any(number >= len(lines) for lines in pair):
            result.add("metrics.jsonl", f"line {number + 1}", "only in one of them")
        elif pair[0][number] != pair[1][number]:
            first, second = pair[0][number], pair[1][number]
            key = next(key for key in dict.fromkeys([*first, *second]) if first.get(key) != second.get(key))
            place = f"{first['split']} at step {first['step']}, {key}"
            result.add("metrics.jsonl", place, f"{first.get(key)!r} and {second.get(key)!r}")


def metric_lines(directory: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, without times."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def _last(directory: Path) -> Path:
    path = Store(directory).find("last")
    if path is None:
        raise CheckpointError(f"{directory} has no checkpoint")
    return path


def _flat(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every leaf of JSON data with its place, but for times."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            if place or key not in TIMES:
                yield from _flat(inner, f"{place}.{key}".lstrip("."))
    else:
        yield place, value


def _text(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else "nothing"


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
