"""The terms of a config's regularizers, which the loop adds to the loss of a training step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from ftengine.build import make
from ftengine.model import Model
from ftengine.plan import Plan
from ftengine.protocols import Backbone, Regularizer, RegularizerContext
from ftengine.start import start_values
from ftengine.terms import add_named, scalars


class Regularizers:
    """Regularizers with their names, in the config's order. They are no part of the model, nor of its checkpoints."""

    def __init__(self, parts: Sequence[tuple[str, Regularizer]]) -> None:
        self.parts = tuple(parts)

    def terms(
        self, model: Model, images: Tensor, features: Mapping[str, Tensor], *, weights: bool
    ) -> dict[str, Tensor]:
        """Each term by name, a scalar with its strength in it; the same name twice gets a ``'``.

        `images` and `features`: the batch's, normalised, and what the backbone made of them. `weights`: also the terms
        of the parameters that train now, in float32 whatever the precision of the run.
        """
        terms: dict[str, Tensor] = {}
        # Those of the features come first, so that their names are the same with the others and without.
        for name, part in self.parts:
            _add(terms, name, part.of_features(images, features))
        training = {name: p for name, p in _regularized(model) if p.requires_grad} if weights and self.parts else {}
        if training:
            with torch.autocast(images.device.type, enabled=False):
                for name, part in self.parts:
                    _add(terms, name, part.of_weights(training))
        return terms


def make_regularizers(plan: Plan, model: Model, start: Mapping[str, Tensor], adapted: bool) -> Regularizers:
    """The config's regularizers, on the model's device.

    `start` has the names of ``model.state_dict()``, which it may be; without regularizers it may be empty. `adapted`:
    an adapter has been applied to the backbone. Raises CheckpointError where `start` does not fit the model.
    """
    if not plan.regularizers:
        return Regularizers(())
    start = {name: value.detach().to("cpu", copy=True) for name, value in start.items()}  # the model's own will move
    values = start_values(model, start)

    def backbone() -> Backbone:
        copy = deepcopy(model.backbone)  # on its device, in its memory format
        prefix = "backbone."
        own = {name.removeprefix(prefix): value for name, value in start.items() if name.startswith(prefix)}
        copy.load_state_dict(own)
        return copy.requires_grad_(False).eval()

    levels = model.backbone.levels
    context = RegularizerContext({name: values[name] for name, _ in _regularized(model)}, backbone, levels, adapted)
    device = next(model.parameters()).device
    made = [(part.component.name, make(part, context, Regularizer)) for part in plan.regularizers]
    return Regularizers([(name, regularizer.to(device)) for name, regularizer in made])


def _regularized(model: Model) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of backbone and heads; what a loss learns (a task's weight) has no size to keep small."""
    own = {id(parameter) for part in (model.backbone, model.heads) for parameter in part.parameters()}
    return ((name, parameter) for name, parameter in model.parameter_names().items() if id(parameter) in own)


def _add(terms: dict[str, Tensor], regularizer: str, given: Mapping[str, Tensor]) -> None:
    for name, term in scalars(f"the regularizer {regularizer!r}", given).items():
        add_named(terms, name, term)
