"""The training loop, for every task and any number of them. It reads from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftengine.averaging import refresh_norms
from ftengine.evaluate import Evaluation, evaluate
from ftengine.loading import feed, open_feeds
from ftengine.model import StreamBatch
from ftengine.optim import set_learning_rates
from ftengine.parallel import agree_on_signals
from ftengine.signals import Interrupted
from ftengine.step import take_step

if TYPE_CHECKING:
    from ftengine.training import Training


def fit(run: Training) -> str:
    """Train from ``run.step`` to the end; returns ``finished``, ``stopped early`` or ``interrupted``.

    All state that a resumed run needs is in `run`; the order of samples, augmentation, dropout and learning rate are
    functions of the step. A signal ends it after a step, or before the next batch is there, also in an evaluation.
    """
    with open_feeds(run) as feeds:
        try:
            train(run, feeds)
            run.save()
        except Interrupted:
            run.save(planned=False)
            return "interrupted"
    run.check_frozen()
    return "finished" if run.step == run.steps else "stopped early"


def train(run: Training, feeds: dict[str, Iterator[StreamBatch]]) -> None:
    """One step takes one batch from every stream, computes it in `accumulate` parts, and moves the weights once."""
    config, freeze = run.plan.config.train, run.plan.config.freeze
    if run.at_open_end:  # of a new run, or of one that was stopped in an evaluation
        done = run.step // run.steps_per_epoch
        if done:
            run.begin_epoch(done - 1)
        finish_epoch(run, done)
    first = run.step
    for step in range(first, run.steps):
        epoch = step // run.steps_per_epoch
        if step in (first, epoch * run.steps_per_epoch):
            if run.judge.patience_is_over():
                break
            run.begin_epoch(epoch)
        position = step / run.steps_per_epoch
        set_learning_rates(run.optimizer, run.lr_factor(step), position, freeze.warmup_epochs)
        take_step(run, feeds, step)
        if run.average is not None:
            run.average.after_step(run.model)

        run.step = step + 1
        run.tracker.advance(run.step, epoch)
        if run.step % config.log_every == 0:
            run.log_training()  # a synchronisation point: the mean losses leave the device
        if run.step % run.steps_per_epoch == 0:
            finish_epoch(run, epoch + 1)
        if run.save_is_due():
            run.save()
        run.check_signals()


def finish_epoch(run: Training, epoch: int) -> None:
    """Average, evaluate if it is time, and save; `epoch` counts the epochs that are done, 0 before the first step.

    Of what is cut off, nothing counts: a run that goes on does it again.
    """
    if epoch == 0:
        run.begin(evaluate_split(run, "val"))  # what was there before: all that changes from now on is fine-tuning
        run.finished_epochs = 0
        if run.plan.config.train.on_non_finite.policy == "rollback":
            run.save()  # what to go back to in the first epoch
        return
    run.log_training()
    config = run.plan.config.train
    new_average = run.average is not None and run.average.after_epoch(run.model, epoch)
    if epoch % config.eval_every == 0 or epoch == config.epochs:
        if run.world.size > 1 or run.save_is_due() or run.save_is_due(epoch):
            run.save()  # whatever happens in the evaluation, which may be long; several processes only stop behind it
        if new_average and run.average is not None:
            start = run.step - run.steps_per_epoch
            feeds = {name: feed(run, name, start, run.step, whole=True) for name in run.streams}
            seen = ((batch, run.streams[name].tasks) for name, batches in feeds.items() for batch in batches)
            refresh_norms(run.average.model, run.model, seen, run.precision)
        run.evaluated(evaluate_split(run, "val"), epoch)
    run.finished_epochs = epoch
    if run.is_best or run.save_is_due(epoch):
        run.save()


def evaluate_split(run: Training, which: str, *, pictures: bool = True) -> Evaluation:
    """Evaluate the average, where there is one, else the weights in training; `val` with pictures if wanted."""
    splits = [(getattr(stream, which), stream.tasks) for stream in run.streams.values()]
    present = [(split, tasks) for split, tasks in splits if split is not None]
    show = run.show_pictures() if which == "val" and pictures and run.world.main else None
    agree_on_signals(run.world, run.signals)
    run_by = (run.precision, run.loader, show, run.world, run.tracker.warn)
    return evaluate(run.plan, run.judged, present, run.metrics, *run_by)
