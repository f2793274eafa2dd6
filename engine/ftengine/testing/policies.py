"""Checks of freeze policies: what they answer, and what comes of it in the steps of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from torch import Tensor, nn

from ftengine.build import make, make_model, make_streams, make_tasks
from ftengine.errors import name_list, unknown
from ftengine.freeze import freeze_context
from ftengine.identical import tensor_difference
from ftengine.loading import open_feeds
from ftengine.model import NORMS, Model
from ftengine.protocols import FreezeContext, FreezePolicy, Progress
from ftengine.step import take_step
from ftengine.testing.checks import Nonconformity, NotApplicable, check
from ftengine.testing.randomness import global_seeds
from ftengine.testing.subject import Subject
from ftengine.training import Training

EPOCHS = 8
"""In so many epochs of a run, at most, real steps are taken."""

Answers = dict[int, frozenset[str]]
"""What a policy freezes in each epoch."""


@dataclass(frozen=True)
class Setting:
    """What policies are made from and asked about, as the small run has it."""

    context: FreezeContext

    @property
    def epochs(self) -> range:
        return range(self.context.epochs)

    @property
    def known(self) -> set[str]:
        """Every name that may be frozen."""
        parts = self._parts
        return {*parts, *(name for names in parts.values() for name in names)}

    @property
    def _parts(self) -> dict[str, Sequence[str]]:
        return {**self.context.stages, **self.context.heads}

    def parameters(self, names: Iterable[str]) -> set[str]:
        """The parameters that `names`, of parameters, stages and heads, stand for."""
        return {inner for name in names for inner in self._parts.get(name, (name,))}

    def progress(self, epoch: int) -> Progress:
        return Progress(epoch, self.context.epochs)

    def asked(self, policy: FreezePolicy, epochs: Iterable[int]) -> Answers:
        """The answers of `policy` for `epochs`, in this order."""
        answers = {}
        for epoch in epochs:
            stages = dict(self.context.stages)
            answer = policy.frozen(stages, self.progress(epoch))
            if not isinstance(answer, Set):
                raise Nonconformity("a set of names", f"a {type(answer).__name__}: {answer!r}")
            if stages != self.context.stages:
                raise Nonconformity("that `frozen` leaves the stages that it is given alone", "that it changes them")
            answers[epoch] = frozenset(answer)
        return answers

    def measure(self, policy: FreezePolicy) -> int | None:
        """Let `policy` measure as the loop would, once; the epoch before which it wanted to, None where in none."""
        trainable = [stage for stage, names in self.context.stages.items() if names]
        for epoch in self.epochs:
            if policy.batches_to_measure(self.progress(epoch)):
                policy.measured({stage: 1 / (1 + place) for place, stage in enumerate(trainable)})
                return epoch
        return None


def setting(subject: Subject) -> Setting:
    """That of the subject's small run."""
    return subject.once(_make_setting)


def _make_setting(subject: Subject) -> Setting:
    plan = subject.plan
    tasks = make_tasks(plan)
    make_streams(plan, tasks)
    with global_seeds(0):
        model = make_model(plan, tasks, pretrained=False).model
    return Setting(freeze_context(model, plan.config.train.epochs))


def new_policy(subject: Subject) -> FreezePolicy:
    """A policy of the subject's options and context, new."""
    return make(subject.part, setting(subject).context, FreezePolicy)  # type: ignore[type-abstract]


@check("freeze")
def policy_is_pure(subject: Subject) -> None:
    """What it freezes follows from options, context and progress alone: asked again, or made anew, it says the same."""
    found = setting(subject)
    with global_seeds(1):
        policy = new_policy(subject)
        _agree(subject, policy, "")
        epoch = found.measure(policy)
        if epoch is not None:
            _agree(subject, policy, f", measured before epoch {epoch + 1}")
    _as_json(policy)


def _agree(subject: Subject, policy: FreezePolicy, when: str) -> None:
    """Raises Nonconformity if `policy` answers otherwise when it is asked again, or a new one of its state does."""
    found = setting(subject)
    first = found.asked(policy, found.epochs)
    _same(first, found.asked(policy, found.epochs), f"asked a second time{when}")
    _same(first, found.asked(policy, reversed(found.epochs)), f"asked about the last epoch first{when}")
    with global_seeds(2):
        other = new_policy(subject)
        if when:
            found.measure(other)
        _same(first, found.asked(other, found.epochs), f"made anew with other global seeds{when}")


def _same(first: Answers, second: Answers, how: str) -> None:
    for epoch, names in first.items():
        if second[epoch] != names:
            raise Nonconformity(
                f"that epoch {epoch + 1} of {len(first)} freezes {name_list(names)} whenever it is asked",
                f"{name_list(second[epoch])}, {how}",
            )


def _as_json(policy: FreezePolicy) -> dict[str, object]:
    """The state of a policy, as it comes back from a checkpoint."""
    state = policy.state()
    try:
        restored: dict[str, object] = json.loads(json.dumps(state))
    except (TypeError, ValueError) as error:
        raise Nonconformity("a state that is JSON data", str(error)) from None
    if restored != state:
        raise Nonconformity("a state that is the same after JSON", f"{restored!r} for {state!r}")
    return restored


@check("freeze")
def policy_names_exist(subject: Subject) -> None:
    """It names stages, heads and parameters that its context has, and no others, in every epoch."""
    found, policy = setting(subject), new_policy(subject)
    for _ in range(2):  # before it has measured, and after
        for epoch, names in found.asked(policy, found.epochs).items():
            for name in sorted(names - found.known):
                kind = "stage, head or parameter"
                raise Nonconformity(
                    f"names of the context in epoch {epoch + 1} of {len(found.epochs)}",
                    unknown(kind, name, found.known),
                )
        if found.measure(policy) is None:
            return


@check("freeze")
def policy_leaves_something(subject: Subject) -> None:
    """In every epoch of the small run something trains."""
    found, policy = setting(subject), new_policy(subject)
    everything = found.parameters(found.known)
    for _ in range(2):  # before it has measured, and after
        for epoch, names in found.asked(policy, found.epochs).items():
            if found.parameters(names) >= everything:
                raise Nonconformity(
                    "that some parameter trains in every epoch",
                    f"that none does in epoch {epoch + 1} of {len(found.epochs)}: it freezes {name_list(names)}",
                )
        if found.measure(policy) is None:
            return


@check("freeze")
def policy_measures_once(subject: Subject) -> None:
    """What it has measured is in its state, is not asked for again, and changes nothing of the epochs before."""
    found, policy = setting(subject), new_policy(subject)
    before = found.asked(policy, found.epochs)
    epoch = found.measure(policy)
    if epoch is None:
        raise NotApplicable("it measures nothing in the small run")
    progress = found.progress(epoch)
    again = policy.batches_to_measure(progress)
    if again:
        raise Nonconformity(
            f"0 batches to measure before epoch {epoch + 1}, once they are measured: a resumed run would measure anew",
            f"{again}",
        )
    after = found.asked(policy, found.epochs)
    _same(
        {earlier: before[earlier] for earlier in range(epoch)},
        {earlier: after[earlier] for earlier in range(epoch)},
        f"after it has measured before epoch {epoch + 1}",
    )
    resumed = new_policy(subject)
    resumed.load_state(_as_json(policy))
    _same(after, found.asked(resumed, found.epochs), "by one that was given its state")
    if resumed.batches_to_measure(progress):
        raise Nonconformity("that one which is given its state has nothing to measure", "that it measures again")


@check("freeze")
def policy_is_honoured(subject: Subject) -> None:
    """In real steps what it freezes stays as it is, bit for bit, with BatchNorm's statistics; all else trains."""
    found, run = setting(subject), subject.training()
    model = run.model
    parameters = {name: one for name, one in _tensors(model).items() if isinstance(one, nn.Parameter)}
    trainable = {name for name, one in parameters.items() if one.requires_grad}
    sloped: set[str] = set()
    for name, one in parameters.items():
        if one.requires_grad:
            one.register_post_accumulate_grad_hook(_noting(name, sloped))  # type: ignore[no-untyped-call]
    for epoch in range(min(len(found.epochs), EPOCHS)):
        run.step = epoch * run.steps_per_epoch
        run.begin_epoch(epoch)
        other = new_policy(subject)  # of the same state: what the run's own says while it trains is not looked at
        other.load_state(run.freezer.policy.state())
        (names,) = found.asked(other, [epoch]).values()
        frozen = found.parameters(names)
        idle = [name for name in trainable - frozen if not parameters[name].requires_grad]
        if idle:
            raise Nonconformity(
                f"that what it does not freeze in epoch {epoch + 1} trains", f"that {name_list(idle, 3)} does not"
            )
        still = frozen
        if subject.plan.config.freeze.frozen_norm == "eval":
            still = still | _statistics(model, frozen, names)
        before = {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}
        sloped.clear()
        take_steps(run, 1)
        moved = {name for name, tensor in _tensors(model).items() if tensor_difference(before[name], tensor)}
        for name in sorted(moved & still):
            raise Nonconformity(
                f"that {name}, which it freezes in epoch {epoch + 1}, stays as it is",
                f"{tensor_difference(before[name], _tensors(model)[name])}, after one step",
            )
        if sloped and not sloped & moved:
            raise Nonconformity(
                f"that what it does not freeze in epoch {epoch + 1} moves",
                f"that none of {len(sloped)} parameters with a gradient has moved after one step",
            )


def _noting(name: str, sloped: set[str]) -> Callable[[Tensor], None]:
    """A hook that adds `name` to `sloped` where its parameter gets a gradient that is not zero."""

    def note(parameter: Tensor) -> None:
        if parameter.grad is not None and bool(parameter.grad.any()):
            sloped.add(name)

    return note


def take_steps(run: Training, count: int) -> None:
    """`count` steps of a run, from where it is."""
    with open_feeds(run) as feeds:
        for step in range(run.step, run.step + count):
            take_step(run, feeds, step)
            run.step = step + 1


def _modules(model: Model) -> dict[str, nn.Module]:
    """The backbone's stages and the heads, as a policy's context names them."""
    heads = {id(head) for head in model.heads.values()}
    stages = model.backbone.stages
    return {name: one for name, one in model.stage_modules().items() if name in stages or id(one) in heads}


def _tensors(model: Model) -> Mapping[str, Tensor]:
    """Parameters and buffers by ``<stage or head>.<name within it>``, as they are."""
    return {
        f"{part}.{name}": tensor
        for part, module in _modules(model).items()
        for name, tensor in [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]
    }


def _statistics(model: Model, frozen: set[str], names: Set[str]) -> set[str]:
    """The buffers of normalisation layers whose parameters are all frozen; of one without any, if its part is named."""
    found: set[str] = set()
    for part, module in _modules(model).items():
        for place, inner in module.named_modules(prefix=part):
            if isinstance(inner, NORMS):
                own = {f"{place}.{name}" for name, _ in inner.named_parameters(recurse=False)}
                if own <= frozen if own else part in names:
                    found |= {f"{place}.{name}" for name, _ in inner.named_buffers(recurse=False)}
    return found
