"""Checks of regularizers: their terms, and that they keep nothing and change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ftengine.errors import name_list
from ftengine.identical import tensor_difference
from ftengine.loading import feed
from ftengine.model import Forward, Model
from ftengine.protocols import Regularizer
from ftengine.regularize import make_regularizers
from ftengine.testing.checks import Nonconformity, check
from ftengine.testing.policies import take_steps
from ftengine.testing.randomness import global_seeds
from ftengine.testing.subject import Subject
from ftengine.training import Training

STEPS = 2
"""Steps after which a model is no longer where it started."""


@dataclass
class Regularized:
    """A small run with the regularizer, its start by the names of the model's state, and a batch of it."""

    run: Training
    regularizer: Regularizer
    start: Mapping[str, Tensor]

    @classmethod
    def of(cls, subject: Subject) -> Regularized:
        run = subject.training()
        start = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        return cls(run, _own(subject, run.regularizers.parts), start)

    def again(self, subject: Subject) -> Regularizer:
        """Another of the same making."""
        made = make_regularizers(self.run.plan, self.run.model, self.start, self.run.adapter is not None)
        return _own(subject, made.parts)

    def forward(self) -> Forward:
        """The first batch through the model, in train mode."""
        name, stream = next(iter(self.run.streams.items()))
        model = self.run.model.train()
        with global_seeds(0):
            result: Forward = model(next(feed(self.run, name, 0, 1)), stream.tasks)
        return result

    def terms(self, regularizer: Regularizer, forward: Forward, *, heads_only: bool = False) -> dict[str, Tensor]:
        """What `regularizer` adds, of the features and of the weights that train."""
        parameters = {
            name: parameter
            for name, parameter in regularized(self.run.model).items()
            if parameter.requires_grad and (name.startswith("head.") or not heads_only)
        }
        terms = {"of_features": regularizer.of_features(forward.images, forward.features)}
        terms["of_weights"] = regularizer.of_weights(parameters)
        return {f"{name} ({place})": term for place, own in terms.items() for name, term in own.items()}


def regularized(model: Model) -> dict[str, torch.nn.Parameter]:
    """The parameters of backbone and heads by the names that a regularizer knows them by."""
    own = {id(parameter) for part in (model.backbone, model.heads) for parameter in part.parameters()}
    return {name: parameter for name, parameter in model.parameter_names().items() if id(parameter) in own}


@check("regularizer")
def regularizer_terms(subject: Subject) -> None:
    """Its terms are finite scalars of at least zero, and their gradients reach what trains and are finite."""
    found = Regularized.of(subject)
    for steps in (0, STEPS):  # at the start, where distances are zero, and after it
        take_steps(found.run, steps)
        when = f"after {steps} steps" if steps else "before the first step"
        terms = found.terms(found.regularizer, found.forward())
        if not terms:
            raise Nonconformity(f"a term of the weights or of the features {when}", "none")
        for name, term in terms.items():
            if not isinstance(term, Tensor) or term.ndim or not term.is_floating_point():
                kind = f"of shape {list(term.shape)}" if isinstance(term, Tensor) else f"a {type(term).__name__}"
                raise Nonconformity(f"that {name} is a scalar tensor of floats", kind)
            if not bool(term.isfinite()) or float(term.detach()) < 0:
                raise Nonconformity(f"that {name} is finite and at least 0 {when}", f"{float(term.detach()):.4g}")
            if not term.requires_grad:
                raise Nonconformity(f"a gradient of {name} {when}, where everything trains", "none")
            _check_gradient(found.run.model, name, term, when)


def _check_gradient(model: Model, name: str, term: Tensor, when: str) -> None:
    parameters = {key: parameter for key, parameter in regularized(model).items() if parameter.requires_grad}
    gradients = torch.autograd.grad(term, list(parameters.values()), allow_unused=True, retain_graph=True)
    reached = {key: one for key, one in zip(parameters, gradients, strict=True) if one is not None}
    if not reached:
        raise Nonconformity(f"that the gradient of {name} reaches a parameter that trains", "that it reaches none")
    broken = [key for key, one in reached.items() if not bool(one.isfinite().all())]
    if broken:
        raise Nonconformity(f"finite gradients of {name} {when}", f"others at {name_list(broken, 3)}")


@check("regularizer")
def regularizer_is_stateless(subject: Subject) -> None:
    """It follows from its options and context alone: whatever it has seen before, one that is made anew agrees."""
    found = Regularized.of(subject)
    found.terms(found.regularizer, found.forward())
    take_steps(found.run, STEPS)
    forward = found.forward()
    for how, regularizer in (("asked again", found.regularizer), ("made anew", found.again(subject))):
        first, second = found.terms(found.regularizer, forward), found.terms(regularizer, forward)
        if first.keys() != second.keys():
            raise Nonconformity(f"the terms {name_list(first)}, {how}", name_list(second))
        for name, term in first.items():
            if tensor_difference(term, second[name]):
                raise Nonconformity(
                    f"that {name} is {float(term.detach()):.9g}, as before, for the same weights and batch, {how}",
                    f"{float(second[name].detach()):.9g}",
                )


@check("regularizer")
def regularizer_leaves_the_model(subject: Subject) -> None:
    """It changes nothing in the model, adds nothing to its state, and has no parameters of its own that would train."""
    found = Regularized.of(subject)
    own = [name for name, parameter in found.regularizer.named_parameters() if parameter.requires_grad]
    if own:
        raise Nonconformity(
            "no parameters of its own that train: no optimizer moves them, no checkpoint holds them", name_list(own)
        )
    model = found.run.model
    forward = found.forward()  # this moves BatchNorm's statistics
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    without = subject.training(regularizers=[]).model.state_dict().keys()
    found.terms(found.regularizer, forward)
    after = model.state_dict()
    if before.keys() != without or after.keys() != without:
        new = (before.keys() | after.keys()) ^ without
        raise Nonconformity("the model's state as it is without it", f"a difference in {name_list(new)}")
    changed = [name for name in before if tensor_difference(before[name], after[name])]
    if changed:
        raise Nonconformity("that the model is as before", f"that it has changed {name_list(changed, 3)}")


@check("regularizer")
def backbone_only_is_true(subject: Subject) -> None:
    """`backbone_only` says whether it does nothing where the backbone does not train."""
    found = Regularized.of(subject)
    take_steps(found.run, STEPS)
    found.run.model.backbone.requires_grad_(False)
    terms = found.terms(found.regularizer, found.forward(), heads_only=True)
    heads = [parameter for parameter in found.run.model.heads.parameters() if parameter.requires_grad]
    acting = [name for name, term in terms.items() if _reaches(term, heads)]
    if found.regularizer.backbone_only and acting:
        raise Nonconformity(
            "backbone_only = False, since with a frozen backbone it still acts on the heads",
            f"True, for which such a run is refused; it acts by {name_list(acting)}",
        )
    if not found.regularizer.backbone_only and not acting:
        raise Nonconformity(
            "backbone_only = True, since with a frozen backbone it does nothing", "False, for which nobody is told so"
        )


def _reaches(term: Tensor, parameters: list[torch.nn.Parameter]) -> bool:
    if not term.requires_grad:
        return False
    gradients = torch.autograd.grad(term, parameters, allow_unused=True, retain_graph=True)
    return any(one is not None and bool(one.any()) for one in gradients)


def _own(subject: Subject, parts: tuple[tuple[str, Regularizer], ...]) -> Regularizer:
    return next(regularizer for name, regularizer in parts if name == subject.component.name)
