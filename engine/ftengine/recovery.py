"""Which checkpoint a run continues from, and which is its best, where some of them are damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ftengine.checkpoint import Checkpoint, Store, step_of
from ftengine.errors import CheckpointError
from ftengine.judge import Best
from ftengine.run_state import check_state

if TYPE_CHECKING:
    from ftengine.training import Training


def last_checkpoint(store: Store, run: Path, warn: Callable[[str], None]) -> Checkpoint:
    """The checkpoint that a run continues from: the last, or if that is damaged, of which `warn` is told, the newest
    whole one. Raises CheckpointError if there is none.
    """
    last, problem = leads_to(store, "last")
    others = [path for path in store.paths() if path != last]
    if last is None and problem is None:
        if not others:
            raise CheckpointError(
                f"{run} has no checkpoint to continue from: expected {store.folder / 'last.json'}; if the run ended "
                "before its first, start it again: in another folder, or in this one with --continue"
            )
        problem = f"{store.folder / 'last.json'} is missing"
    problems = [] if problem is None else [problem]
    for path in others if last is None else [last, *others]:
        try:
            found = store.read(path, for_training=True)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if problems:
            warn("\n  ".join([*problems, f"the newest whole checkpoint takes its place: {path}"]))
        return found
    raise CheckpointError("\n  ".join([f"{run} has no whole checkpoint to continue from:", *problems]))


def settle_best(run: Training) -> None:
    """Make the record of the best and ``best.json`` agree, on a checkpoint that is whole.

    They differ in a run that was killed between two pointers. Where the best is damaged or gone, the user is told, and
    the best of the checkpoints that are whole and not later than the run takes its place, if any was evaluated.
    """
    store, judge = run.store, run.judge
    pointed, problem = leads_to(store, "best")
    if pointed is not None and pointed.name == f"step-{run.step:08d}-mixed" and store.is_whole(pointed):
        # The run had come to its end. Its record of the best is in there, and counts if it goes on after all.
        state = store.read(pointed, for_training=False).state
        check_state(state, pointed)
        if state["monitor"] == run.plan.monitor.name:
            judge.load_state(state["judge"])
        return
    if judge.best.step == 0:
        if pointed is not None and step_of(pointed) <= run.step and store.is_whole(pointed):
            return  # the best by another measure, until there is one by this
        if pointed is not None or problem is not None:
            run.tracker.warn(f"{problem or pointed} is not the best of this run so far, and left out")
            store.unpoint("best")
        return
    wanted = store.present(judge.best.checkpoint)
    try:
        store.verify(wanted)
    except CheckpointError as error:
        found = Best()
        for path in store.paths():
            evaluated = _evaluated(run, path) if step_of(path) <= run.step else None
            if evaluated is not None and judge.gain(evaluated.value, found.value) > 0:
                found = evaluated
        judge.adopt(found)
        if found.step:
            store.point("best", store.present(found.checkpoint))
            now = f"the best of those that are whole is {found.checkpoint}"
        else:
            store.unpoint("best")
            now = "no other that is whole was evaluated: the next one that is will be the best"
        run.tracker.warn(f"the best checkpoint is lost: {error}\n  {now}")
    else:
        if problem is not None:
            run.tracker.warn(f"{problem}; it leads to {wanted.name} again")
        if pointed != wanted:
            store.point("best", wanted)


def leads_to(store: Store, pointer: str) -> tuple[Path | None, str | None]:
    """Where a pointer leads, and what is wrong with it if that cannot be known."""
    try:
        return store.find(pointer), None
    except CheckpointError as error:
        return None, str(error)


def _evaluated(run: Training, path: Path) -> Best | None:
    """The evaluation of a checkpoint's weights; None if there was none by the run's measure, or it is damaged."""
    try:
        state = run.store.read(path, for_training=False).state
        check_state(state, path)
    except CheckpointError:
        return None
    latest = Best.of_state(state["judge"]["latest"])
    return latest if latest.step == step_of(path) and state["monitor"] == run.plan.monitor.name else None
