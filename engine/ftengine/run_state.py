"""What the ``state.json`` of a checkpoint that can be trained on must hold.

A checkpoint is data from wherever the user has it: what is in it is looked at before any of it is used. What the parts
of a run say of themselves (``tasks``, ``freeze``, ``optimizer``) they look at themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftengine.errors import CheckpointError
from ftengine.protocols import Task

if TYPE_CHECKING:
    from ftengine.checkpoint import Checkpoint

Count = Annotated[int, Field(ge=0, le=2**62)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class BestState(_Part):
    """`ftengine.judge.Best`; null is NaN."""

    value: float | None
    step: Count
    epoch: Count
    values: dict[str, float | None]
    since: Count
    reference: float | None
    mixed: float | None


class JudgeState(_Part):
    best: BestState
    latest: BestState
    history: list[float | None]


class MeterState(_Part):
    sums: dict[str, float]
    counts: dict[str, float]
    samples: Count
    steps: Count


class ScalerState(_Part):
    """`torch.amp.GradScaler`."""

    scale: Annotated[float, Field(ge=0, le=1e38)]
    growth_factor: Annotated[float, Field(gt=1, le=1e38)]
    backoff_factor: Annotated[float, Field(gt=0, lt=1)]
    growth_interval: Annotated[int, Field(ge=1, le=2**31 - 1)]
    growth_tracker: Annotated[int, Field(ge=0, le=2**31 - 1, alias="_growth_tracker")]


class RunState(_Part):
    step: Count
    epoch: Annotated[float, Field(ge=0)]
    finished_epochs: Annotated[int, Field(ge=-1, le=2**62)]
    tasks: dict[str, Any]
    data: dict[str, dict[str, str]]
    monitor: str
    optimizer_name: str
    start: str
    start_values: dict[str, float | None]
    judge: JudgeState
    freeze: dict[str, Any]
    audit: dict[str, tuple[str, Count]]
    optimizer: dict[str, Any]
    scaler: Annotated[dict[str, Any], Field(max_length=0)] | ScalerState
    left_out: Count
    rollback_to: Count | None
    parts: Annotated[int, Field(ge=1, le=2**31)]
    accumulate: Annotated[int, Field(ge=1, le=2**31)] | None
    average: str
    averaged: Count
    epoch_loss: tuple[float, Count]
    meter: MeterState
    since_logged: float
    elapsed: Seconds
    images: Count
    seconds: Seconds
    trained: Count
    peak_memory: Count


def check_state(state: Mapping[str, Any], path: Path) -> None:
    """Raises CheckpointError, which names every place, unless `state` is of the right types and in range."""
    try:
        RunState.model_validate_json(json.dumps(state))
    except ValidationError as error:
        shown = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:4]]
        raise CheckpointError(f"{path}: state.json is not the state of a run\n  " + "\n  ".join(shown)) from None


def load_tasks(tasks: Mapping[str, Task], checkpoint: Checkpoint) -> None:
    """Give every task what it has learned from the training data; raises CheckpointError if it is not its own."""
    for name, task in tasks.items():
        try:
            state = checkpoint.state["tasks"][name]
            task.load_state(state)
            same = json.loads(json.dumps(task.state())) == state
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"{checkpoint.path}: the state of task {name!r} is damaged: {error!r}") from None
        if not same:
            raise CheckpointError(f"{checkpoint.path}: the state of task {name!r} is not what a task writes")
