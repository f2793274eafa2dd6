"""Back to the weights of the last checkpoint after a step whose numbers broke."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftengine.checkpoint import Checkpoint
from ftengine.errors import TrainingError
from ftengine.guard import Fault
from ftengine.recovery import last_checkpoint
from ftengine.resume import restore_learning

if TYPE_CHECKING:
    from ftengine.training import Training


def roll_back(run: Training, fault: Fault) -> int:
    """After `fault`: the last checkpoint's weights, average and optimizer again; returns the number of its steps.

    What was frozen since then is as it was there, and is held to that from now on. Raises TrainingError where there is
    no checkpoint yet.
    """

    def last() -> Checkpoint:
        if run.store.find("last") is None:
            raise TrainingError(f"{fault}\n  train.on_non_finite: there is no checkpoint yet to roll back to")
        return last_checkpoint(run.store, run.tracker.info.directory, run.tracker.warn)

    run.check_frozen()
    checkpoint = run.world.from_main(last)
    restore_learning(run, checkpoint)
    run.audit.renew(run.model)
    return int(checkpoint.state["step"])
