"""The training loop, for every task and any number of them. It reads from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from ftengine.data import batches
from ftengine.evaluate import Evaluation, evaluate, weighted_terms
from ftengine.model import StreamBatch
from ftengine.optim import set_learning_rates
from ftengine.order import TrainOrder
from ftengine.seeding import seed_step

if TYPE_CHECKING:
    from ftengine.training import Training


def fit(run: Training) -> str:
    """Train from ``run.step`` to the end; returns ``finished``, ``stopped early`` or ``interrupted``.

    One step takes one batch from every stream, computes it in `accumulate` parts, and moves the weights once. All
    state that a resumed run needs is in `run`; the order of samples, augmentation, dropout and learning rate are
    functions of the step.
    """
    if run.patience_is_over():  # a run that stopped early is resumed
        return "stopped early"
    config = run.plan.config.train
    device, precision, optimizer, model = run.precision.device, run.precision, run.optimizer, run.model
    feeds = {name: feed(run, name) for name in run.streams}
    run.apply_freeze(run.step // run.steps_per_epoch)
    model.train()
    for step in range(run.step, run.steps):
        epoch = step // run.steps_per_epoch
        if step % run.steps_per_epoch == 0:
            run.apply_freeze(epoch)
        seed_step(config.seed, step, device)
        set_learning_rates(optimizer, run.plan.schedule, step, run.steps, run.steps_per_epoch)

        for name, stream in run.streams.items():
            batch = next(feeds[name])
            for part in batch.split(config.accumulate):
                with precision.autocast():
                    results = model(part.to(device), stream.tasks)
                    loss, terms = weighted_terms(run.plan, model, results)
                run.guard.watch(step, part.ids, loss, terms)  # on a CPU it raises here, before the gradient is used
                precision.scaler.scale(loss / config.accumulate).backward()  # type: ignore[no-untyped-call]
                run.meter.add(loss, terms, len(part), config.accumulate)

        if config.clip_norm is not None:
            precision.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        precision.scaler.step(optimizer)
        precision.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        if run.ema is not None:
            run.ema.update(model)

        run.step = step + 1
        run.tracker.advance(run.step, epoch)
        if run.step % config.log_every == 0:
            run.log_training()  # a synchronisation point: the mean losses leave the device
        if run.step % run.steps_per_epoch == 0:
            finish_epoch(run, epoch + 1)
            if run.patience_is_over():
                return "stopped early"
        if run.signals.received:
            run.save()
            return "interrupted"
    return "finished"


def feed(run: Training, name: str) -> Iterator[StreamBatch]:
    """A stream's batches from the current step on. A stream shorter than the epoch begins its own epochs anew."""
    split = run.streams[name].train
    config = run.plan.config.train
    order = TrainOrder(len(split), config.batch_size, config.seed, name, run.step, run.steps, split.groups)
    return batches(split, order, run.loader)


def finish_epoch(run: Training, epoch: int) -> None:
    """Evaluate if it is time, and save; `epoch` counts the epochs that are done."""
    run.log_training()
    config = run.plan.config.train
    if epoch % config.eval_every == 0 or epoch == config.epochs:
        evaluation = evaluate_split(run, "val")
        run.judge(evaluation, epoch)
        run.model.train()
    run.save()


def evaluate_split(run: Training, which: str) -> Evaluation:
    """Evaluate the average, where there is one, else the weights in training."""
    model = run.model if run.ema is None else run.ema.model
    splits = [(getattr(stream, which), stream.tasks) for stream in run.streams.values()]
    present = [(split, tasks) for split, tasks in splits if split is not None]
    show = run.show_pictures() if which == "val" else None
    return evaluate(run.plan, model, present, run.metrics, run.precision, run.loader, show)
