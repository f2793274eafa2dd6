"""Gradients of a few batches, by stage, for policies that choose by them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

from ftengine.errors import TrainingError, name_list
from ftengine.evaluate import weighted_terms
from ftengine.loading import batches as load_batches
from ftengine.model import Model
from ftengine.order import TrainOrder
from ftengine.seeding import seed_step

if TYPE_CHECKING:
    from ftengine.training import Training


def relative_gradients(run: Training, batches: int) -> dict[str, float]:
    """‖gradient‖₂ / ‖weights‖₂ of each backbone stage: the relative gradient norm (Lee et al., arXiv 2210.11466).

    The gradient is the mean over the `batches` batches of each stream that training would take next, of the weighted
    loss without regularizers, as if all of the backbone trained that can. Stages where nothing can are left out; one
    whose weights are all zero has inf, or 0 without gradient. The same step gives the same numbers, and the model is
    afterwards what it was before, bit for bit, with no gradients. Raises TrainingError if a gradient is not finite.
    """
    model, config, precision = run.model, run.plan.config.train, run.precision
    # In half precision a gradient may vanish or overflow; the scaler, which prevents that, must not learn from this.
    context = nullcontext if precision.name == "fp16" else precision.autocast
    parts = run.micro.parts * run.world.size  # each process computes whole batches, in parts as large as training's
    one_image = config.batch == config.accumulate * run.world.size
    with _everything_trains(model, one_image=one_image) as stages:
        feeds = {}
        for name, stream in run.streams.items():
            split = stream.train
            last = run.step + batches
            order = TrainOrder(len(split), config.batch, config.seed, name, run.step, last, split.groups)
            feeds[name] = load_batches(split, order, run.loader)
        for step in range(run.step, run.step + batches):
            seed_step(config.seed, step, precision.device)
            for name, stream in run.streams.items():
                batch = next(feeds[name])
                for part in batch.split(parts):
                    part = part.to(precision.device)
                    if run.mixing is not None:
                        part = run.mixing(part, stream.tasks)
                    with context():
                        loss, _ = weighted_terms(run.plan, model, model(part, stream.tasks).results)
                    (loss * (len(part) / len(batch) / batches)).backward()  # type: ignore[no-untyped-call]
        ratios = {stage: _ratio(parameters) for stage, parameters in stages.items()}
    broken = [stage for stage, ratio in ratios.items() if math.isnan(ratio)]
    if broken:
        raise TrainingError(
            f"the gradients of {batches} batches, which the freeze policy asked for before step {run.step}, are not "
            f"finite in: {name_list(broken)}\n  common causes: a loss that is not finite for some target, or "
            "pretrained weights that are not"
        )
    return ratios


def _ratio(parameters: list[torch.nn.Parameter]) -> float:
    """NaN where the gradient is not finite."""
    weights = float(torch.nn.utils.get_total_norm([parameter.detach() for parameter in parameters]))
    gradient = float(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    if not math.isfinite(gradient):
        return math.nan
    if weights == 0:
        return math.inf if gradient else 0.0
    return gradient / weights


@contextmanager
def _everything_trains(model: Model, *, one_image: bool) -> Iterator[dict[str, list[torch.nn.Parameter]]]:
    """The backbone's trainable parameters by stage; in the end all flags, modes and buffers are as they were."""
    fixed = {id(p) for name, p in model.backbone.stages.named_parameters(remove_duplicate=False) if name in model.fixed}
    stages = {
        stage: [p for p in parameters if id(p) not in fixed]
        for stage, parameters in model.stage_parameters().items()
        if stage in model.backbone.stages
    }
    stages = {stage: parameters for stage, parameters in stages.items() if parameters}
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    norms = model.frozen_norms
    try:
        # A BatchNorm that sees one value a channel cannot train: freezing is what such a run is for.
        model.frozen_norms = model.single_position_norms if one_image else []
        model.train()
        model.zero_grad(set_to_none=True)
        for parameters in stages.values():
            for parameter in parameters:
                parameter.requires_grad_(True)
        yield stages
    finally:
        model.zero_grad(set_to_none=True)
        model.frozen_norms = norms
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for module, name, buffer, values in buffers:
                setattr(module, name, buffer.copy_(values))  # a forward pass may have put another tensor in its place
