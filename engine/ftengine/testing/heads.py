"""Checks of heads: that they learn, what they can do without, and that nothing but their own input counts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import closing

import torch
from torch import Tensor, nn

from ftengine.errors import name_list
from ftengine.loading import feed
from ftengine.narrow import mend_strided
from ftengine.protocols import Batch, Output, Prediction
from ftengine.step import take_step
from ftengine.testing.bench import Bench, bench, chosen, without_biases
from ftengine.testing.checks import Nonconformity, NotApplicable, check
from ftengine.testing.randomness import global_seeds
from ftengine.testing.same import difference
from ftengine.testing.subject import Subject

STEPS = 20
"""So many training steps a loss has to fall in."""

FALL = 0.1
"""By which part of its first value."""

ADAMW = {"name": "adamw", "lr": 1e-3}
"""What the batch is learnt with where the author's config names no optimizer: its steps are of one size in any loss."""

ROUNDS = 3
"""Steps in one of which each parameter must get a gradient: behind a layer that begins with zeros it comes later."""

ROUNDING = 1e-4
"""How far the same computation on other neighbours in the batch may lie apart, by rounding."""


@check("head", "loss")
def loss_falls(subject: Subject) -> None:
    """The loss falls when the small run's model learns one batch again and again."""
    with global_seeds(0):
        run = subject.training(**({} if "optimizer" in subject.changes else {"optimizer": ADAMW}))
        held = {}
        for name in run.streams:
            with closing(feed(run, name, whole=True)) as batches:
                held[name] = itertools.repeat(next(batches))
        run.begin_epoch(0)
        values: list[float] = []
        for _ in range(STEPS + 1):
            take_step(run, held, 0)  # always the first: with its dropout and sampling, so that the weights alone count
            run.check_numbers()
            values.append(run.meter.take()["loss"])
            if values[0] - values[-1] > FALL * abs(values[0]):
                return
    raise Nonconformity(
        f"a loss that falls by {FALL:.0%} within {STEPS} steps on one batch",
        f"{values[0]:.4g} before the first, {values[-1]:.4g} after the last",
    )


@check("head", "loss")
def empty_targets(subject: Subject) -> None:
    """Images with nothing to learn from (no box, no class, only ignored pixels) give a finite loss and gradient."""
    found = bench(subject)
    batch, features = found.empty()
    head = found.head(training=True)
    output = found.forward(head, batch, features)
    _finite_loss(found, head, output, batch, f"images without any `{found.plan.field}`")


@check("head")
def head_gradients(subject: Subject) -> None:
    """A gradient arrives at every trainable parameter of the head."""
    found = bench(subject)
    head = found.head(training=True)
    named = {name: value for name, value in head.named_parameters() if value.requires_grad}
    if not named:
        raise NotApplicable("it has no parameters that train")
    reached: set[str] = set()
    optimizer = torch.optim.AdamW(named.values(), lr=1e-3)
    for seed in range(ROUNDS):
        optimizer.zero_grad()
        terms = found.terms(found.forward(head, found.batch, seed=seed), found.batch, seed)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        reached |= {name for name, value in named.items() if _is_reached(value)}
        if len(reached) == len(named):
            return
        optimizer.step()
    missing = [name for name in named if name not in reached]
    raise Nonconformity(
        f"a gradient at each of its {len(named)} parameters that train",
        f"none in {ROUNDS} steps at {name_list(missing)}",
    )


@check("head")
def head_unlabelled(subject: Subject) -> None:
    """Images without targets, also a single one, can be predicted."""
    found = bench(subject)
    whole = found.whole()
    for count in (len(whole), 1):
        batch, features = chosen(whole, found.features, slice(count))
        try:
            made = predicted(found, found.head(), batch, features)
        except Exception as error:
            raise Nonconformity(
                f"a prediction for {_images(count)} without targets", f"{type(error).__name__}: {error}"
            ) from error
        if len(made) != count:
            raise Nonconformity(f"a prediction for each of {_images(count)} without targets", str(len(made)))


@check("head")
def head_independence(subject: Subject) -> None:
    """In eval mode the prediction for an image does not depend on the other images of the batch."""
    found = bench(subject)
    head, batch = found.sure_head(), found.whole()
    if len(batch) < 2:
        raise NotApplicable("the small run has batches of one image")
    alone = predicted(found, head, batch, found.features)[0]
    # The number of images stays: with another one, the same sums may be added up in another order.
    images = torch.cat([batch.images[:1], 2 * batch.images[1:].flip(0)])
    features = {level: torch.cat([each[:1], 2 * each[1:].flip(0)]) for level, each in found.features.items()}
    other = Batch(images, {}, batch.ids, batch.frames)
    changed = difference(alone, predicted(found, head, other, features)[0], ROUNDING)
    if changed is not None:
        raise Nonconformity("the same prediction for the first image, whatever the others of the batch are", changed)


@check("head")
def head_levels(subject: Subject) -> None:
    """The feature levels that the spec declares are enough to build the head and to run it."""
    found = bench(subject)
    levels = found.plan.head.spec.levels or found.run.model.backbone.levels[-1:]
    features = {level: values for level, values in found.features.items() if level in levels}
    declared = name_list(levels) + ("" if found.plan.head.spec.levels else ", the last one, as the spec declares none")
    try:
        predicted(found, found.new_head(0, tuple(levels)), found.whole(), features)
    except Exception as error:
        raise Nonconformity(
            f"that it needs no level but {declared}", f"without the others {type(error).__name__}: {error}"
        ) from error


@check("head")
def head_state(subject: Subject) -> None:
    """A new head that takes over the state dict predicts the same."""
    found = bench(subject)
    head = without_biases(found.new_head(0)).train()
    with torch.no_grad():
        found.forward(head, found.batch)  # what it notes in training, such as running statistics, is state as well
    other = found.new_head(1)
    try:
        other.load_state_dict(head.state_dict())
    except RuntimeError as error:
        raise Nonconformity("a state dict that another head of the same options takes", str(error)) from error
    batch = found.whole()
    expected = predicted(found, head.eval(), batch, found.features)
    changed = difference(expected, predicted(found, other, batch, found.features))
    if changed is not None:
        raise Nonconformity("the same predictions of a new head with the same state dict", f"image {changed}")


@check("head")
def head_bf16(subject: Subject) -> None:
    """In bf16 autocast loss, gradients and predictions are finite."""
    found = bench(subject)
    features = {level: values.bfloat16() for level, values in found.features.items()}
    head = found.head(training=True)
    mend_strided(head)  # as in a run: a defect of torch's, which is none of the head's
    with torch.autocast("cpu", torch.bfloat16):
        output = found.forward(head, found.batch, features)
        _finite_loss(found, head, output, found.batch, "bf16 autocast")
        with torch.no_grad():
            output = found.forward(head.eval(), found.whole(), features)
    for index, prediction in enumerate(head.predict(output, found.whole())):
        for name, value in prediction.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise Nonconformity(
                    "finite predictions in bf16 autocast", f"{_first_broken(value)} in {name!r} of image {index}"
                )


@torch.no_grad()
def predicted(found: Bench, head: nn.Module, batch: Batch, features: Mapping[str, Tensor]) -> list[Prediction]:
    """What a head in eval mode says of a batch."""
    return head.predict(found.forward(head, batch, features), batch)  # type: ignore[arg-type, operator, no-any-return]


def _is_reached(parameter: nn.Parameter) -> bool:
    """Whether it has a gradient; that of a bias may be 0, as it is where a BatchNorm follows."""
    return parameter.grad is not None and (parameter.dim() < 2 or bool(parameter.grad.any()))


def _finite_loss(found: Bench, head: nn.Module, output: Output, batch: Batch, where: str) -> None:
    for name, value in output.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Tensor) and not bool(each.isfinite().all()):
                raise Nonconformity(f"a finite output of {where}", f"{_first_broken(each)} in {name!r}")
    terms = found.terms(output, batch)
    for name, term in terms.items():
        if not bool(term.isfinite().all()):
            raise Nonconformity(f"a finite loss of {where}", f"{name} {_first_broken(term)}")
    total = torch.stack(list(terms.values())).sum()
    if not total.requires_grad:
        raise Nonconformity(f"a loss of {where} that the weights count in", "one that requires no gradient")
    total.backward()  # type: ignore[no-untyped-call]
    for name, parameter in head.named_parameters():
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            raise Nonconformity(f"finite gradients of {where}", f"{_first_broken(parameter.grad)} in that of {name}")


def _first_broken(values: Tensor) -> str:
    return f"{float(values.detach()[~values.isfinite()][0]):g}"


def _images(count: int) -> str:
    return "a single image" if count == 1 else f"{count} images"
