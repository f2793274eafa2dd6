"""The weights that a run started from: stored once with it, verified, and how far training has moved away from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ftengine.checkpoint import sha256
from ftengine.disk import publish
from ftengine.errors import CheckpointError, name_list
from ftengine.model import Model
from ftengine.protocols import Backbone
from ftengine.tensor_file import encode, load_tensors

FILE = "start.safetensors"


def save_start(directory: Path, model: Model) -> str:
    """Write all parameters and persistent buffers to ``start.safetensors`` in a run directory; returns its SHA-256.

    As with a checkpoint, the file is there whole, on the disk, or not at all.
    """
    return publish(directory / FILE, encode(model.state_dict()))


def load_start(directory: Path, digest: str) -> dict[str, Tensor]:
    """What `save_start` wrote, on the CPU, under the names of the model's ``state_dict``; raises as `check_start`."""
    return load_tensors(check_start(directory, digest))


def check_start(directory: Path, digest: str) -> Path:
    """The file that `save_start` wrote. Raises CheckpointError if it is missing, or its SHA-256 is not `digest`."""
    file = directory / FILE
    advice = (
        "\n  it holds the weights that the run started from, which its regularizers and its report compare with: put "
        "the run's own file back, or start a new run"
    )
    if not file.is_file():
        raise CheckpointError(f"{file} is missing{advice}")
    if sha256(file) != digest:
        raise CheckpointError(f"{file} is damaged: it is not what was written (its SHA-256 differs){advice}")
    return file


def start_values(model: Model, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The start's value of every parameter, under the names of ``model.parameter_names()``.

    `start` has the names of ``model.state_dict()``. Raises CheckpointError if it is another model's: other names, also
    of buffers, or other shapes.
    """
    _check(model, start)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {name: start[names[id(parameter)]] for name, parameter in model.parameter_names().items()}


def distance(backbone: Backbone, start: Mapping[str, Tensor]) -> dict[str, float]:
    """How far a backbone's parameters have moved from `start`, relative to its size: ||w - w0|| / ||w0|| (L2).

    ``backbone`` is that of all parameters, the others that of each stage that has any; buffers, such as BatchNorm's
    statistics, do not count, and what stages share counts once, in the first. Summed in float64 on the CPU: a
    synchronisation point. `start` has the names of ``backbone.state_dict()``: an adapted backbone and its start are
    merged first. Raises CheckpointError where it does not fit.
    """
    _check(backbone, start)
    moved: dict[str, float] = {}
    norms: dict[str, float] = {}
    for name, parameter in backbone.stages.named_parameters():
        before, now = start[f"stages.{name}"].detach().cpu().double(), parameter.detach().cpu().double()
        for key in ("backbone", name.partition(".")[0]):
            moved[key] = moved.get(key, 0.0) + float((now - before).square().sum())
            norms[key] = norms.get(key, 0.0) + float(before.square().sum())
    return {key: _ratio(math.sqrt(moved[key]), math.sqrt(norms[key])) for key in moved}


def _check(module: nn.Module, start: Mapping[str, Tensor]) -> None:
    own = module.state_dict()
    missing, unexpected = own.keys() - start.keys(), start.keys() - own.keys()
    shapes = [name for name in own.keys() & start.keys() if own[name].shape != start[name].shape]
    if missing or unexpected or shapes:
        raise CheckpointError(
            f"the weights that the run started from do not fit the model; missing: {name_list(missing, 4)}; "
            f"unexpected: {name_list(unexpected, 4)}; of another shape: {name_list(shapes, 4)}"
        )


def _ratio(moved: float, norm: float) -> float:
    """0 for what has not moved, and infinity where zeros have."""
    if norm:
        return moved / norm
    return math.inf if moved else 0.0
