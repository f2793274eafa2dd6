"""The training loop, for every task and any number of them. It reads from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from ftengine.averaging import refresh_norms
from ftengine.evaluate import Evaluation, evaluate, weighted_terms
from ftengine.guard import Computed
from ftengine.loading import batches
from ftengine.model import Model, StreamBatch
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
    if run.step == run.steps or run.judge.patience_is_over():  # a run that is over is resumed
        run.check_frozen()
        return "finished" if run.step == run.steps else "stopped early"
    config, freeze = run.plan.config.train, run.plan.config.freeze
    if run.step == 0:
        run.begin(evaluate_split(run, "val"))  # what was there before: all that changes from now on is fine-tuning
    feeds = {name: feed(run, name) for name in run.streams}
    run.begin_epoch(run.step // run.steps_per_epoch)
    for step in range(run.step, run.steps):
        epoch = step // run.steps_per_epoch
        if step % run.steps_per_epoch == 0:
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
            if run.judge.patience_is_over():
                run.save()
                run.check_frozen()
                return "stopped early"
        if run.signals.received:
            run.save()
            return "interrupted"
        if run.save_is_due():
            run.save()
    run.save()
    run.check_frozen()
    return "finished"


def take_step(run: Training, feeds: dict[str, Iterator[StreamBatch]], step: int) -> None:
    """One optimizer step of a model in train mode, with the learning rates as they are set.

    Where the numbers break, nothing moves, and the config says what happens; where memory runs out, the same step is
    done again in smaller parts if the config allows it.
    """
    config, optimizer, scaler = run.plan.config.train, run.optimizer, run.precision.scaler
    batches = {name: next(feeds[name]) for name in run.streams}
    while True:
        seed_step(config.seed, step, run.precision.device)
        with run.micro.retry(run.model, optimizer) as attempt:
            parts = compute_gradients(run, batches)
        if attempt.done:
            break
        run.tracker.warn(attempt.text)
    scaler.unscale_(optimizer)
    norm = gradient_norm(run.model)
    finite = torch.stack([part.loss for part in parts]).isfinite().all()
    if not scaler.is_enabled():  # fp16's scaler leaves out the steps whose gradients overflow, as it must now and then
        finite = finite & norm.isfinite()
    if run.guard.judge(step, ~finite, norm, parts):
        if config.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(run.model.parameters(), config.clip_norm, norm)
        scaler.step(optimizer)
        scaler.update()
        for part in parts:
            run.meter.add(part)
        run.gradient_norm = norm
    else:
        run.check_numbers()
    optimizer.zero_grad(set_to_none=True)


def compute_gradients(run: Training, batches: dict[str, StreamBatch]) -> list[Computed]:
    """Add the gradients of the mean loss of each stream's batch, computed in parts; returns the parts."""
    precision, model = run.precision, run.model
    computed = []
    once = True  # the terms of the weights are counted with the first batch only
    for name, batch in batches.items():
        tasks = run.streams[name].tasks
        for part in batch.split(run.micro.parts):
            part = part.to(precision.device)
            if run.mixing is not None:
                part = run.mixing(part, tasks)
            with precision.autocast():
                forward = model(part, tasks)
                loss, terms = weighted_terms(run.plan, model, forward.results)
                extra = run.regularizers.terms(model, forward.images, forward.features, weights=once)
                loss = sum(extra.values(), loss)
            share = len(part) / len(batch)
            precision.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
            terms |= {f"regularizer/{key}": term for key, term in extra.items()}
            computed.append(
                Computed(part.ids, loss.detach(), {key: term.detach() for key, term in terms.items()}, share)
            )
        once = False
    return computed


def gradient_norm(model: Model) -> torch.Tensor:
    """The L2 norm of the gradient of all parameters together, a scalar on the device."""
    return torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def feed(run: Training, name: str, start: int | None = None, stop: int | None = None) -> Iterator[StreamBatch]:
    """A stream's batches from step `start` (None: the current one) to `stop` (None: the end).

    A stream shorter than the epoch begins its own epochs anew.
    """
    split = run.streams[name].train
    config = run.plan.config.train
    first, last = run.step if start is None else start, run.steps if stop is None else stop
    order = TrainOrder(len(split), config.batch_size, config.seed, name, first, last, split.groups)
    return batches(split, order, run.loader)


def finish_epoch(run: Training, epoch: int) -> None:
    """Average, evaluate if it is time, and save; `epoch` counts the epochs that are done."""
    run.log_training()
    config = run.plan.config.train
    new_average = run.average is not None and run.average.after_epoch(run.model, epoch)
    if epoch % config.eval_every == 0 or epoch == config.epochs:
        if new_average and run.average is not None:
            start = run.step - run.steps_per_epoch
            seen = ((batch, s.tasks) for name, s in run.streams.items() for batch in feed(run, name, start, run.step))
            refresh_norms(run.average.model, run.model, seen, run.precision)
        run.evaluated(evaluate_split(run, "val"), epoch)
    if run.is_best or run.save_is_due(epoch):
        run.save()


def evaluate_split(run: Training, which: str, *, pictures: bool = True) -> Evaluation:
    """Evaluate the average, where there is one, else the weights in training; `val` with pictures if wanted."""
    splits = [(getattr(stream, which), stream.tasks) for stream in run.streams.values()]
    present = [(split, tasks) for split, tasks in splits if split is not None]
    show = run.show_pictures() if which == "val" and pictures else None
    return evaluate(run.plan, run.judged, present, run.metrics, run.precision, run.loader, show)
