"""One optimizer step: gradients in parts, whether they are finite, and the move of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ftengine.evaluate import weighted_terms
from ftengine.guard import Computed, Watched
from ftengine.micro_batch import memory_for_state
from ftengine.model import Model, StreamBatch
from ftengine.seeding import seed_step

if TYPE_CHECKING:
    from ftengine.training import Training


def take_step(run: Training, feeds: Mapping[str, Iterator[StreamBatch]], step: int) -> None:
    """One optimizer step of a model in train mode, with the learning rates as they are set.

    Where the numbers break, nothing moves, and the config says what happens; where memory runs out, the same step is
    done again in smaller parts if the config allows it.
    """
    config, optimizer, scaler = run.plan.config.train, run.optimizer, run.precision.scaler
    batches = {name: next(feeds[name]) for name in run.streams}
    run.keep_buffers()
    done = False
    while not done:
        seed_step(config.seed, step, run.precision.device, run.world.rank)
        with run.micro.retry(run.model, optimizer) as attempt:
            parts = compute_gradients(run, batches)
        done = attempt.done
        if attempt.text:
            run.tracker.warn(attempt.text)
    whole = run.exchange.step(parts, stop=run.signals.received or 0, due=run.minutes_are_over())
    scaler.unscale_(optimizer)
    norm = gradient_norm(run.model)
    left_out, broken = judge(run, whole, norm)
    if config.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(run.model.parameters(), config.clip_norm, norm)
    with memory_for_state():
        if run.guard.on_device:
            optimizer.found_inf = left_out.float()  # its fused kernel looks there, as with torch's own GradScaler
            optimizer.step()
        elif not bool(left_out):  # a synchronisation point on a GPU
            optimizer.step()
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    run.gradient_norm = norm
    run.guard.waiting.append(Watched(step, broken, norm, parts, whole))
    if not run.guard.on_device:
        run.check_numbers()


def judge(run: Training, parts: Sequence[Computed], norm: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the step is to be left out, and whether that is a fault; bool scalars on the device.

    The two differ in fp16 only: there a gradient overflows now and then until the scale of the loss fits. It is a fault
    once the scale is down to 1, where the gradient itself has no room in the format.
    """
    finite = torch.stack([part.loss.float() for part in parts]).isfinite().all()
    left_out = ~(finite & norm.isfinite())
    if not run.precision.scaler.is_enabled():
        return left_out, left_out
    scale = run.precision.scaler.scale(torch.ones((), device=norm.device))
    return left_out, left_out & (~finite | (scale <= 1))


def compute_gradients(run: Training, batches: Mapping[str, StreamBatch]) -> list[Computed]:
    """Add the gradients of the mean loss of each stream's batch, computed in parts; returns the parts.

    Each part counts by its share of the batch's samples. For a loss that is a mean over samples the sum is the
    gradient of the whole batch. One that divides by something else, such as the pixels with a label or the boxes that
    were sampled, is a mean of the parts' means.
    """
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
            share = len(part) / len(batch) / run.world.size
            precision.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
            terms |= {f"regularizer/{key}": term for key, term in extra.items()}
            computed.append(
                Computed(part.ids, loss.detach(), {key: term.detach() for key, term in terms.items()}, share)
            )
        once = False
    return computed


def gradient_norm(model: Model) -> Tensor:
    """The L2 norm of the gradient of all parameters together, a scalar on the device."""
    return torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
