"""A run's model as one safetensors file for use elsewhere, its adapters merged.

The file's header says, beside ``format: pt``, in JSON wherever it is not a plain word:

- ``ftengine``: the version that wrote it; ``checkpoint``: the folder it was written from
- ``backbone``: the backbone with its options; ``image``: how images are made to fit, their size among it
- ``frames``: how many a clip has, where the model takes clips
- ``mean``, ``std``: 3 numbers each, for images in 0..1
- ``tasks``: by name the task, its head with options, and its state: names of classes, units, statistics
- ``others``: the names of the tensors that are not the backbone's
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor

from ftengine.build import make_model, make_tasks
from ftengine.checkpoint import Store, best_or_last, load_model
from ftengine.document import read
from ftengine.errors import CheckpointError, FtengineError, name_list
from ftengine.files import whole
from ftengine.model import Model
from ftengine.plan import Plan
from ftengine.protocols import Task
from ftengine.resolve import resolve
from ftengine.run_state import load_tasks

INSIDE = "backbone.stages."
"""What stands before a backbone's names in those of the model."""


@dataclass(frozen=True)
class Merged:
    """A run's model on the CPU, in eval mode, without an adapter, from `checkpoint`."""

    model: Model
    tasks: Mapping[str, Task]
    checkpoint: Path


def open_merged(directory: Path, plan: Plan, checkpoint: Path) -> Merged:
    """Load a run's `checkpoint` and merge its adapter, if it has one. torch's generator is left as it was."""
    saved = Store(directory).load(checkpoint, for_training=False)
    tasks = make_tasks(plan)
    load_tasks(tasks, saved)
    with torch.random.fork_rng(devices=[]):
        built = make_model(plan, tasks, pretrained=False)
    load_model(built.model, saved.model, checkpoint)
    built.model.eval()
    if built.adapter is not None:
        built.adapter.merge(built.model.backbone)
    return Merged(built.model, tasks, checkpoint)


def merged_tensors(directory: Path, checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint of the run in `directory`, which has an adapter, as if it had none."""
    plan = resolve(read(directory / "resolved.yaml"), trained=True)
    return dict(open_merged(directory, plan, checkpoint).model.state_dict())


def pick_checkpoint(directory: Path, which: Literal["best", "last"]) -> Path:
    """The checkpoint that is the `best`, or the last where none was yet; or the `last`."""
    path = best_or_last(directory) if which == "best" else Store(directory).find("last")
    if path is None:
        raise CheckpointError(f"{directory} has no last checkpoint")
    return path


@dataclass(frozen=True)
class Exported:
    """What was written: how many tensors of the backbone, how many of the `heads`, and from which checkpoint."""

    backbone: int
    heads: int
    checkpoint: str


def export(
    directory: Path, plan: Plan, file: Path, which: Literal["best", "last"], names: Literal["published", "ftengine"]
) -> Exported:
    """Write `file`, whole or not at all.

    `names`: ``ftengine`` are those of the checkpoint. With ``published`` the backbone's are those of its published
    files, so that the library that it is from loads them (with ``strict=False``), and of the rest only the heads'
    ``heads.<task>.<name>`` are written. Raises FtengineError where one of these is a name of that library's.
    """
    merged = open_merged(directory, plan, pick_checkpoint(directory, which))
    backbone, state = merged.model.backbone, merged.model.state_dict()
    tensors = {name: tensor for name, tensor in state.items() if name.startswith(INSIDE)}
    others = {name: tensor for name, tensor in state.items() if name not in tensors}
    heads = [name for name in others if name.startswith("heads.")]
    if names == "published":
        published = {name.removeprefix("stages."): theirs for name, theirs in backbone.published.items()}
        own = {name.removeprefix(INSIDE): tensor for name, tensor in tensors.items()}
        tensors = {published.get(name, name): tensor for name, tensor in own.items()}
        others = {name: others[name] for name in heads}
        taken = sorted(others.keys() & {*tensors, *backbone.discarded})
        if taken:
            raise FtengineError(
                f"published files have tensors of these names, too: {name_list(taken)}; use --names ftengine"
            )
    everything = {name: tensor.contiguous().clone() for name, tensor in {**tensors, **others}.items()}
    with whole(file) as temporary:
        safetensors.torch.save_file(everything, temporary, _header(plan, merged, list(others)))
    return Exported(len(tensors), len(heads), merged.checkpoint.name)


def _header(plan: Plan, merged: Merged, others: list[str]) -> dict[str, str]:
    tasks = {
        name: {"task": part.task.component.name, "head": part.head.data(), "state": merged.tasks[name].state()}
        for name, part in plan.tasks.items()
    }
    return {
        "format": "pt",
        "ftengine": version("ftengine"),
        "checkpoint": merged.checkpoint.name,
        "backbone": json.dumps(plan.backbone.data()),
        "image": json.dumps(plan.config.image.model_dump(mode="json")),
        **({} if plan.frames is None else {"frames": str(plan.frames)}),
        "mean": json.dumps(_numbers(merged.model.get_buffer("mean"))),
        "std": json.dumps(_numbers(merged.model.get_buffer("std"))),
        "tasks": json.dumps(tasks),
        "others": json.dumps(others),
    }


def _numbers(tensor: Tensor) -> list[float]:
    """Single precision in as few digits as tell it apart: 0.485, not 0.48500001430511475."""
    return [float(str(value)) for value in tensor.flatten().numpy()]
