"""What follows on steps whose numbers broke: they are told of and left out, or lead back to an earlier checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftengine.checkpoint import Checkpoint
from ftengine.errors import CheckpointError
from ftengine.parallel import of_all
from ftengine.recovery import last_checkpoint
from ftengine.resume import restore_learning

if TYPE_CHECKING:
    from ftengine.training import Training


def settle(run: Training) -> None:
    """Count the good steps since the last time, and deal with the broken ones; see `Training.check_numbers`."""
    good, faults = run.guard.check()
    for parts in good:
        run.meter.add(parts, run.world.size)
    faults = of_all(run.world, faults)
    for fault in faults:
        run.tracker.fault(fault, fault.step / run.steps_per_epoch)
    if not faults:
        return
    run.guard.decide(faults)
    # On a GPU good steps may have been taken since the copy: their statistics are kept, if they can be.
    if not run.guard.on_device or not run.buffers.finite():
        run.buffers.restore()
    done = "it is left out"
    if run.guard.config.policy == "rollback":
        done = f"the weights are again those after step {roll_back(run)}"
    for fault in faults:
        run.tracker.warn(f"{fault}\n  {done}")


def roll_back(run: Training) -> int:
    """The weights, the average and the optimizer of the last planned checkpoint again; returns the number of its steps.

    Where that is damaged, of which the user is told, it is the newest whole one. What was frozen since then is as it
    was there, and is held to that from now on.
    """

    def good() -> Checkpoint:
        store = run.store
        if run.rollback_to is not None:
            try:
                return store.read(store.present(f"step-{run.rollback_to:08d}"), for_training=True)
            except CheckpointError as error:
                run.tracker.warn(str(error))
        return last_checkpoint(store, run.tracker.info.directory, run.tracker.warn)

    run.check_frozen()
    run.store.wait()
    checkpoint = run.world.from_main(good)
    restore_learning(run, checkpoint)
    run.audit.renew(run.model)
    return int(checkpoint.state["step"])
