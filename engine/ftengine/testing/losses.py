"""Checks of losses: named terms that are means over the batch, and functions of their input alone."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor

from ftengine.errors import name_list
from ftengine.protocols import Batch
from ftengine.specs import LossSpec
from ftengine.testing.bench import Bench, bench
from ftengine.testing.checks import Nonconformity, NotApplicable, check
from ftengine.testing.same import difference, kind
from ftengine.testing.subject import Subject

ROUNDING = 1e-3
"""How far, relatively, a mean over a batch may lie from that over the batch twice, by rounding."""

SAMPLED = 0.1
"""Likewise where the head samples what is learnt from: it draws anew for each image. A sum would be off by 1."""

SHARE = 0.7
"""What an image has of its own in a mixed batch."""


@check("loss")
def loss_terms(subject: Subject) -> None:
    """The loss gives a dict of named, finite scalars, each with a gradient."""
    found = bench(subject)
    for _, loss in found.losses():
        terms: Any = loss(found.forward(found.head(training=True), found.batch), found.batch)
        if not isinstance(terms, dict) or not terms:
            raise Nonconformity("a dict of named terms", kind(terms) if terms else f"an empty {kind(terms)}")
        for name, term in terms.items():
            if not isinstance(name, str) or not isinstance(term, Tensor):
                raise Nonconformity("a tensor for each name", f"{kind(term)} for {name!r}")
            if term.dim() or not term.is_floating_point():
                raise Nonconformity("a floating-point scalar for each name", f"{kind(term)} for {name!r}")
            if not bool(term.isfinite()):
                raise Nonconformity("finite terms", f"{float(term.detach()):g} for {name!r}")
            if not term.requires_grad:
                raise Nonconformity("terms with a gradient, as all of them are minimised", f"{name!r} without one")


@check("loss")
def loss_mean(subject: Subject) -> None:
    """Each term is a mean over the batch: the same batch twice over gives the same, not twice as much."""
    found = bench(subject)
    once, samples = _evaluated(found, found.batch, found.features)
    twice, _ = _evaluated(found, *found.twice())
    tolerance = SAMPLED if samples else ROUNDING
    for name in once:
        first, second = float(once[name]), float(twice[name])
        if abs(second - first) > tolerance * max(abs(first), 1e-6):
            raise Nonconformity(
                f"the same {name!r}, to within {tolerance:.1%}, of a batch as of that batch twice over",
                f"{first:.6g} of {len(found.batch)} images, {second:.6g} of twice as many",
            )


@check("loss")
def loss_soft_targets(subject: Subject) -> None:
    """A loss whose spec says `soft` takes probabilities for class ids: one-hot ones give the same, mixed ones count."""
    found = bench(subject)
    if not cast(LossSpec, subject.component.spec).soft:
        raise NotApplicable("its spec says soft=False")
    if found.plan.field not in found.plan.task.spec.soft:
        raise NotApplicable(f"the task {found.plan.task.component.name} cannot mix its `{found.plan.field}`")
    output = found.forward(found.head(), found.batch)
    soft = found.task.soften(found.batch.targets)
    whole = {name: value.float() for name, value in soft.items()}
    mixed = {name: SHARE * value + (1 - SHARE) * value.roll(1, 0) for name, value in whole.items()}
    with torch.no_grad():
        hard, exact, blended = (found.terms(output, _with(found.batch, targets)) for targets in ({}, whole, mixed))
    changed = difference(hard, exact, ROUNDING)
    if changed is not None:
        raise Nonconformity("the same of one-hot probabilities as of class ids", changed)
    for name, term in blended.items():
        if not bool(term.isfinite()):
            raise Nonconformity("finite terms of mixed targets", f"{float(term):g} for {name!r}")
    alike = all(torch.equal(whole[name], mixed[name]) for name in whole)
    if not alike and difference(exact, blended, 1e-6) is None:
        raise Nonconformity(
            f"another loss where {1 - SHARE:.0%} of each image's target are another image's",
            f"the same: {name_list(f'{name} {float(term):.6g}' for name, term in exact.items())}",
        )


@check("loss")
def loss_repeats(subject: Subject) -> None:
    """The same output and targets give the same loss each time, whatever was drawn in between."""
    found = bench(subject)
    output = found.forward(found.head(training=True), found.batch)
    with torch.no_grad():
        first, second = (found.terms(output, found.batch, seed) for seed in (1, 2))
    changed = difference(first, second)
    if changed is not None:
        raise Nonconformity("the same of the same output and targets", changed)


@check("loss")
def loss_inputs(subject: Subject) -> None:
    """The loss leaves the output and the targets as they are, which other losses and metrics get as well."""
    found = bench(subject)
    with torch.no_grad():
        output = found.forward(found.head(training=True), found.batch)
        batch = _with(found.batch, copy.deepcopy(dict(found.batch.targets)))
        before = {"output": copy.deepcopy(output), "targets": copy.deepcopy(dict(batch.targets))}
        found.terms(output, batch)
    changed = difference(before, {"output": output, "targets": batch.targets})
    if changed is not None:
        raise Nonconformity("output and targets as they were", changed)


@torch.no_grad()
def _evaluated(found: Bench, batch: Batch, features: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """The terms in eval mode, if the head has a loss there, and whether it has none: it samples in training."""
    samples = not found.head().loss_in_eval
    return found.terms(found.forward(found.head(training=samples), batch, features), batch), samples


def _with(batch: Batch, targets: dict[str, Any]) -> Batch:
    """The batch with some of its targets replaced."""
    return Batch(batch.images, {**batch.targets, **targets}, batch.ids, batch.frames)
