"""Applies a freeze policy to the model: what it names does not train, and its normalisation layers stay in eval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ftengine.errors import FtengineError, unknown
from ftengine.model import NORMS, Model
from ftengine.protocols import FreezeContext, FreezePolicy, Progress


def freeze_context(model: Model, epochs: int) -> FreezeContext:
    """What a policy is made from. Losses are not part of it: what they learn always trains."""
    stages: dict[str, tuple[str, ...]] = {}
    heads: dict[str, tuple[str, ...]] = {}
    norms: set[str] = set()
    for part, module in _parts(model).items():
        names = tuple(f"{part}.{name}" for name, _ in module.named_parameters())
        (stages if part in model.backbone.stages else heads)[part] = names
        for inner, child in module.named_modules(prefix=part):
            if isinstance(child, NORMS):
                norms |= {f"{inner}.{name}" for name, _ in child.named_parameters(recurse=False)}
    return FreezeContext(stages, heads, frozenset(norms), epochs)


@dataclass(frozen=True)
class Forecast:
    """What a policy does over a run: is anything frozen in some epoch, does anything of the backbone train in some?

    `first_thaw`: the first epoch that begins with something unfrozen, if there is one.
    """

    anything_frozen: bool
    backbone_trains: bool
    first_thaw: int | None


class Freezer:
    """Asks the policy at each epoch and flips flags where its answer has changed.

    A parameter that is named, or whose stage or head is, gets ``requires_grad=False``; so does, always, one that came
    frozen. With ``frozen_norm="eval"`` a normalisation layer stays in eval mode if all its parameters are frozen; one
    without parameters, if its stage or head is. With ``"train"`` none does: BatchNorm goes on with each batch's
    statistics, and updates its running ones.

    After `apply`, ``since`` maps the id of each parameter that trains to the epoch in which its present trainable
    period began (0: with the run). It comes from the policy's answers for the epochs before, and so is the same in a
    run that was resumed.
    """

    def __init__(self, model: Model, policy: FreezePolicy, frozen_norm: Literal["eval", "train"] = "eval") -> None:
        self.model = model
        self.policy = policy
        self.frozen_norm = frozen_norm
        self.since: dict[int, int] = {}
        context = freeze_context(model, 1)
        self._stages = context.stages
        self._parts = {**context.stages, **context.heads}
        self._parameters = {
            f"{part}.{name}": parameter
            for part, module in _parts(model).items()
            for name, parameter in module.named_parameters(remove_duplicate=False)
        }
        heads = [self._parameters[name] for names in context.heads.values() for name in names]
        self._fixed = {id(parameter) for parameter in heads if not parameter.requires_grad}
        self._fixed |= {id(self._parameters[name]) for name in model.fixed}
        self._frozen: tuple[set[str], set[int]] | None = None  # whole stages and heads by name, parameters by id

    def check(self, epochs: int) -> None:
        """Raises FtengineError if in some epoch the policy names what is not there or leaves nothing to train."""
        for epoch in range(epochs):
            self._check_something_trains(Progress(epoch, epochs))

    def forecast(self, epochs: int) -> Forecast | None:
        """What the policy will do in a run of `epochs`; None if it has yet to measure what it decides by."""
        going = [Progress(epoch, epochs) for epoch in range(epochs)]
        if any(self.policy.batches_to_measure(progress) for progress in going):
            return None
        backbone = {id(self._parameters[name]) for names in self._stages.values() for name in names}
        frozen = [self._ask(progress)[1] for progress in going]
        thaws = [epoch for epoch in range(1, epochs) if frozen[epoch - 1] - frozen[epoch]]
        return Forecast(
            anything_frozen=any(answer - self._fixed for answer in frozen) or bool(self._fixed),
            backbone_trains=any(backbone - answer for answer in frozen),
            first_thaw=thaws[0] if thaws else None,
        )

    def apply(self, progress: Progress) -> bool:
        """Freeze what the policy says for `progress`; True if that differs from before.

        Raises FtengineError as `check` does: the first time for all epochs, so that a run does not end in the middle.
        """
        if self._frozen is None:
            self.check(progress.epochs)
        self._check_something_trains(progress)
        answer = self._ask(progress)
        if self._frozen == answer:
            return False
        self._frozen = answer
        parts, frozen = answer
        for parameter in self._parameters.values():
            parameter.requires_grad_(id(parameter) not in frozen)
            if not parameter.requires_grad:
                parameter.grad = None
        self.since = self._trainable_since(progress, frozen)
        self.model.frozen_norms = self._norms_in_eval(parts)
        self.model.train(self.model.training)
        return True

    def held(self) -> dict[str, Tensor]:
        """What must not change until the next change of what is frozen, by its name in the model's state_dict.

        All parameters that do not train; the buffers of normalisation layers that stay in eval mode; and the other
        buffers (not of normalisation layers) of a stage or head of which nothing trains.
        """
        whole, _ = self._frozen or (set(), set())
        in_eval = set(map(id, self.model.frozen_norms))
        still: set[int] = set()
        for part, module in _parts(self.model).items():
            parameters = list(module.parameters())
            at_rest = part in whole if not parameters else not any(p.requires_grad for p in parameters)
            for inner in module.modules():
                if id(inner) in in_eval or (at_rest and not isinstance(inner, NORMS)):
                    still |= {id(buffer) for buffer in inner.buffers(recurse=False)}
        return {
            name: tensor
            for name, tensor in self.model.state_dict(keep_vars=True).items()
            if (isinstance(tensor, nn.Parameter) and not tensor.requires_grad) or id(tensor) in still
        }

    def _ask(self, progress: Progress) -> tuple[set[str], set[int]]:
        """The policy's answer: the stages and heads that it names, and the ids of all parameters that do not train."""
        names = set(self.policy.frozen(self._stages, progress))
        known = {*self._parts, *(name for within in self._parts.values() for name in within)}
        for name in sorted(names - known):
            raise FtengineError(
                f"the freeze policy {type(self.policy).__name__} froze {name!r}: "
                f"{unknown('stage, head or parameter', name, known)}"
            )
        parts = names & set(self._parts)
        # By id: what is shared with another stage is frozen in both.
        frozen = {
            id(self._parameters[name])
            for part, within in self._parts.items()
            for name in within
            if part in parts or name in names
        }
        return parts, frozen | self._fixed

    def _check_something_trains(self, progress: Progress) -> None:
        _, frozen = self._ask(progress)
        if all(id(parameter) in frozen for parameter in self._parameters.values()):
            heads = ", ".join(sorted(set(self._parts) - set(self._stages)))
            raise FtengineError(
                f"freeze: nothing would train in epoch {progress.epoch + 1}: the backbone ({', '.join(self._stages)}) "
                f"and the heads ({heads}) are frozen as a whole; leave a part of them out: `freeze: all` trains the "
                "heads alone (they must have parameters), `freeze: none` everything"
            )

    def _trainable_since(self, progress: Progress, frozen: set[int]) -> dict[int, int]:
        since: dict[int, int] = {}
        going_on = {id(parameter) for parameter in self._parameters.values()} - frozen
        for epoch in reversed(range(progress.epoch)):
            _, before = self._ask(Progress(epoch, progress.epochs))
            since |= dict.fromkeys(going_on & before, epoch + 1)
            going_on -= before
        return since | dict.fromkeys(going_on, 0)

    def _norms_in_eval(self, parts: set[str]) -> list[nn.Module]:
        if self.frozen_norm == "train":
            return []
        norms: list[nn.Module] = []
        for part, module in _parts(self.model).items():
            for inner in module.modules():
                if isinstance(inner, NORMS):
                    own = list(inner.parameters(recurse=False))
                    if part in parts if not own else not any(parameter.requires_grad for parameter in own):
                        norms.append(inner)
        return norms


def _parts(model: Model) -> dict[str, nn.Module]:
    """The backbone's stages and the heads, without the losses."""
    losses = {id(module) for module in model.losses.values()}
    return {name: module for name, module in model.stage_modules().items() if id(module) not in losses}
