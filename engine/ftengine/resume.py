"""A run's state as a checkpoint, and back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ftengine.checkpoint import Checkpoint, Snapshot, load_model
from ftengine.errors import CheckpointError
from ftengine.finite import with_nan, without_nan
from ftengine.optim import load_optimizer_state, optimizer_state
from ftengine.recovery import leads_to, settle_best
from ftengine.run_state import check_state
from ftengine.samples import record, state_changes, what_changed

if TYPE_CHECKING:
    from ftengine.training import Training


def snapshot(run: Training) -> Snapshot:
    """All that a resumed run needs. `model` is what was evaluated; the weights in training beside it if they differ."""
    tensors, plain = optimizer_state(run.optimizer, run.model)
    averaged = run.judged is not run.model
    now = time.perf_counter()
    state = {
        "step": run.step,
        "epoch": run.epoch,
        "finished_epochs": run.finished_epochs,
        "tasks": {name: task.state() for name, task in run.tasks.items()},
        "data": {name: stream.fingerprints for name, stream in run.streams.items()},
        "monitor": run.plan.monitor.name,
        "optimizer_name": run.plan.optimizer.torch_name,
        "start": run.start,
        "start_values": without_nan(run.start_values),
        "judge": run.judge.state(),
        "freeze": run.freezer.policy.state(),
        "audit": run.audit.state(),
        "optimizer": plain,
        "scaler": run.precision.state(),
        "left_out": run.guard.left_out,
        "rollback_to": run.rollback_to,
        "parts": run.micro.parts * run.world.size,
        "accumulate": None if run.micro.grown else run.plan.config.train.accumulate,
        "average": "" if run.average is None else run.average.kind,
        "averaged": 0 if run.average is None else run.average.updates,
        "epoch_loss": list(run.epoch_loss),
        "meter": run.meter.state(),
        "since_logged": now - run.logged_at,
        "elapsed": now - run.started,
        "images": run.images,
        "seconds": run.seconds,
        "trained": run.trained,
        "peak_memory": run.memory.bytes,
    }
    return Snapshot(run.judged.state_dict(), run.model.state_dict() if averaged else {}, tensors, state)


def restore(run: Training, checkpoint: Checkpoint, *, force: bool = False) -> None:
    """Take a checkpoint's state; raises CheckpointError if it is another run's, or the data have changed.

    `force`: changed data are only told of. A state that does not fit the model or the optimizer is never taken.
    """
    state = checkpoint.state
    check_state(state, checkpoint.path)
    _compare_data(run, checkpoint, force)
    if state["step"] > run.steps:
        raise CheckpointError(f"{checkpoint.path}: {state['step']} steps are done, and the config wants {run.steps}")
    if state["finished_epochs"] > state["step"] // run.steps_per_epoch:
        raise CheckpointError(f"{checkpoint.path}: more epochs are finished than {state['step']} steps make")
    if state["optimizer_name"] != run.plan.optimizer.torch_name:
        raise CheckpointError(
            f"{checkpoint.path}: the optimizer's state is that of {state['optimizer_name']}, the config wants "
            f"{run.plan.optimizer.torch_name}; start a new run (with `backbone.weights: run:DIR` to build on this one)"
        )
    restore_learning(run, checkpoint)
    run.guard.left_out, run.rollback_to = state["left_out"], state["rollback_to"]
    if state["accumulate"] in (None, run.plan.config.train.accumulate):  # not where the config has others now
        run.micro.parts = max(-(-state["parts"] // run.world.size), run.micro.parts)
    if state["monitor"] == run.plan.monitor.name:  # by another measure nothing was the best yet
        run.judge.load_state(state["judge"])
    try:
        run.freezer.policy.load_state(state["freeze"])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        message = f"freeze policy {run.plan.freeze.component.name!r} cannot take the run's state: {error}"
        raise CheckpointError(f"{checkpoint.path}: {message}") from error
    run.audit.load_state(state["audit"])
    run.start, run.start_values = state["start"], with_nan(state["start_values"])
    run.step, run.finished_epochs = run.saved = (state["step"], state["finished_epochs"])
    if run.world.main:
        if leads_to(run.store, "last")[0] != checkpoint.path:  # the last one is damaged
            run.store.point("last", checkpoint.path)
        settle_best(run)
        run.store.prune()  # a run that is over saves nothing more, and leaves what a killed save left
    run.judge.load_state(run.world.from_main(run.judge.state))
    run.epoch_loss = (state["epoch_loss"][0], state["epoch_loss"][1])
    run.meter.load(state["meter"], run.precision.device)
    run.started -= state["elapsed"]
    run.logged_at = time.perf_counter() - state["since_logged"]
    run.images, run.seconds = state["images"], state["seconds"]
    run.trained, run.memory.before = state["trained"], state["peak_memory"]


def record_samples(run: Training) -> None:
    """Write which samples each split holds, where that is not written, so that a resume can name what has changed."""
    if not run.world.main:
        return
    for name, stream in run.streams.items():
        for which, fingerprint in stream.fingerprints.items():
            record(run.tracker.info.directory, name, which, getattr(stream, which).data, fingerprint)


def _compare_data(run: Training, checkpoint: Checkpoint, force: bool) -> None:
    """Raises CheckpointError that names every difference of data and label maps; with `force`, warns of them."""
    changes = []
    for name, stream in run.streams.items():
        before = checkpoint.state["data"].get(name, {})
        for which in dict.fromkeys([*before, *stream.fingerprints]):
            if before.get(which) != stream.fingerprints.get(which):
                split = getattr(stream, which)
                data, known = None if split is None else split.data, before.get(which, "")
                text = what_changed(run.tracker.info.directory, name, which, data, known)
                if text:
                    changes.append(f"data.{which} of {name!r}: {text}")
                else:  # the same data, some of which cannot be read any more, go by the same name
                    stream.fingerprints[which] = known
    for name, task in run.tasks.items():
        lines = state_changes(checkpoint.state["tasks"].get(name), task.state())
        changes += [f"task {name!r}, learned from the training split: {line}" for line in lines]
    if not changes:
        record_samples(run)  # the lists may have been left behind when the run was moved
        return
    listed = "".join(f"\n  {change}" for change in changes)
    if not force:
        raise CheckpointError(
            f"{checkpoint.path}: the data are not those of the run{listed}\n  Bring them back, go on with these by "
            "--force, or start a new run (with `backbone.weights: run:DIR` to build on this one)."
        )
    run.tracker.warn(f"going on with other data than the run had{listed}")
    record_samples(run)


def restore_learning(run: Training, checkpoint: Checkpoint) -> None:
    """Take a checkpoint's weights, their average, and the optimizer's state."""
    state = checkpoint.state
    load_model(run.model, checkpoint.training or checkpoint.model, checkpoint.path)
    if run.average is not None:
        same = state["average"] == run.average.kind  # else a new one begins at the weights in training
        load_model(run.average.model, checkpoint.model if same else run.model.state_dict(), checkpoint.path)
        run.average.updates = state["averaged"] if same else 0
    load_optimizer_state(run.optimizer, run.model, checkpoint.optimizer, state["optimizer"])
    if state["scaler"]:
        run.precision.scaler.load_state_dict(state["scaler"])
