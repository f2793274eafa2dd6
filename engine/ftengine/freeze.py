"""Applies a freeze policy to the model: what it names does not train, and its normalisation layers stay in eval."""

from __future__ import annotations

from torch import nn

from ftengine.errors import FtengineError, unknown
from ftengine.model import NORMS, Model
from ftengine.protocols import FreezeContext, FreezePolicy, Progress


def freeze_context(model: Model, epochs: int) -> FreezeContext:
    """What a policy is made from."""
    stages: dict[str, tuple[str, ...]] = {}
    heads: dict[str, tuple[str, ...]] = {}
    norms: set[str] = set()
    for stage, module in model.stage_modules().items():
        names = tuple(f"{stage}.{name}" for name, _ in module.named_parameters())
        (stages if stage in model.backbone.stages else heads)[stage] = names
        for inner, child in module.named_modules(prefix=stage):
            if isinstance(child, NORMS):
                norms |= {f"{inner}.{name}" for name, _ in child.named_parameters(recurse=False)}
    return FreezeContext(stages, heads, frozenset(norms), epochs)


class Freezer:
    """Asks the policy at each epoch and flips flags where its answer has changed.

    A parameter that is named, or whose stage is, gets ``requires_grad=False``. A normalisation layer stays in eval
    mode if all its parameters are frozen; one without parameters, if its stage is.
    """

    def __init__(self, model: Model, policy: FreezePolicy) -> None:
        self.model = model
        self.policy = policy
        self.stages = freeze_context(model, 1).stages
        self.frozen: set[str] | None = None

    def apply(self, progress: Progress) -> bool:
        """Freeze what the policy says for `progress`; True if that differs from before."""
        names = set(self.policy.frozen(self.stages, progress))
        known = {*self.stages, *(name for parameters in self.stages.values() for name in parameters)}
        for name in sorted(names - known):
            policy = type(self.policy).__name__
            raise FtengineError(
                f"the freeze policy {policy} froze {name!r}: {unknown('stage or parameter', name, known)}"
            )
        parameters = {
            name for stage, within in self.stages.items() for name in within if stage in names or name in names
        }
        stages = names & set(self.stages)
        if self.frozen == parameters | stages:
            return False
        self.frozen = parameters | stages
        norms: list[nn.Module] = []
        by_name = dict(self.model.backbone.stages.named_parameters(remove_duplicate=False))
        held = {
            id(by_name[name]) for name in parameters | self.model.fixed
        }  # what is shared with another stage is frozen in both
        for parameter in by_name.values():
            parameter.requires_grad_(id(parameter) not in held)
            if not parameter.requires_grad:
                parameter.grad = None
        for stage, module in self.model.backbone.stages.items():
            for inner in module.modules():
                if isinstance(inner, NORMS):
                    own = list(inner.parameters(recurse=False))
                    if stage in stages if not own else all(not parameter.requires_grad for parameter in own):
                        norms.append(inner)
        self.model.frozen_norms = norms
        self.model.train(self.model.training)
        return True
