"""The config of a run that is there: read, compared with another, and what of it may change. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ftengine.document import Document, dotted, override, read, walk
from ftengine.errors import CheckpointError, ConfigError, Problem
from ftengine.plan import Plan
from ftengine.resolve import load, resolve

RESUMABLE = (
    "train.workers",
    "train.worker_timeout",
    "train.process_timeout",
    "train.on_bad_sample",
    "train.device",
    "train.log_every",
    "train.eval_batch_size",
    "data.root",
    "checkpoint",
)
"""What a resumed run may be given: none of it changes what is computed."""


def run_document(directory: Path) -> Document:
    """A run's resolved config. Raises CheckpointError for a folder that is no run directory."""
    file = directory / "resolved.yaml"
    if not file.is_file():
        raise CheckpointError(f"{directory} is not a run directory: it has no resolved.yaml")
    return read(file)


def resumed_plan(
    directory: Path, config: Path | None, task: str | None, assignments: tuple[str, ...], *, force: bool = False
) -> Plan:
    """The plan of a run that continues: its own, but for a few settings that do not change what it computes.

    `force`: any setting may change, by `config` or `assignments`; what has is printed.
    """
    document = run_document(directory)
    if force:
        return _forced_plan(document, directory, config, task, assignments)
    only(assignments, RESUMABLE, "--resume continues the same run, unless --force is given")
    if config is not None:
        agrees(document, load(config, (), task), directory)
    override(document, assignments)
    plan = resolve(document, trained=True)
    own = [part.task.component.name for part in plan.tasks.values()]
    if task is not None and own != [task]:
        raise CheckpointError(f"--task {task}: the run in {directory} is of {', '.join(own)}")
    return plan


def _forced_plan(
    document: Document, directory: Path, config: Path | None, task: str | None, assignments: tuple[str, ...]
) -> Plan:
    """The plan that a forced resume goes on with; says in which values it differs from the run's."""
    if config is not None:
        plan = load(config, assignments, task)
    else:
        changed = run_document(directory)
        override(changed, assignments)
        plan = resolve(changed, trained=True)
    plan = _with_found(plan, document)
    for problem in _differences(document, plan):
        click.echo(f"warning: {problem}", err=True)
    return plan


def agrees(document: Document, plan: Plan, directory: Path) -> None:
    """Raises ConfigError that names every value in which a config differs from a run's."""
    leaves = _differences(document, plan)
    if leaves:
        message = f"--config differs from the run in {directory}, which --resume would continue unchanged"
        raise ConfigError([Problem("", f"{message}; with --force the config counts"), *leaves])


def _differences(document: Document, plan: Plan) -> list[Problem]:
    """Every value in which a config differs from a run's."""
    pair = (document.data, _with_found(plan, document).resolved())
    flat = [{dotted(path): _at(data, path) for path in walk(data, ())} for data in pair]
    differing = [
        Problem(key, f"the run has {flat[0].get(key)!r}, the config {flat[1].get(key)!r}")
        for key in sorted(set(flat[0]) | set(flat[1]))
        if key and not key.startswith("provenance") and flat[0].get(key) != flat[1].get(key)
    ]
    return [p for p in differing if not any(q.path.startswith((p.path + ".", p.path + "[")) for q in differing)]


def _with_found(plan: Plan, document: Document) -> Plan:
    """`plan` with the batch size that a run has found, where it says `auto`."""
    if plan.config.train.batch_size != "auto":
        return plan
    return plan.with_train(batch_size=document.data["train"]["batch_size"])


def _at(data: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


def only(assignments: tuple[str, ...], allowed: tuple[str, ...], reason: str) -> None:
    """Raises ConfigError for an assignment to anything but the keys in `allowed` and what is below them."""
    for assignment in assignments:
        key = assignment.partition("=")[0].strip()
        if not any(key == name or key.startswith(name + ".") for name in allowed):
            raise ConfigError([Problem(key, f"{reason}; only these can be set: {', '.join(allowed)}", source="--set")])
