"""Checks of tasks: their defaults, what `fit` learns, and what targets become."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from torch import Tensor

from ftengine.errors import name_list, unknown
from ftengine.host import Component
from ftengine.protocols import TARGET_FIELDS, Dataset, Target
from ftengine.specs import LossSpec, TaskSpec
from ftengine.testing.checks import Nonconformity, NotApplicable, check
from ftengine.testing.material import PLACE, new_task, samples
from ftengine.testing.randomness import global_seeds
from ftengine.testing.same import difference, kind, pickled
from ftengine.testing.subject import Subject


@check("task")
def task_defaults(subject: Subject) -> None:
    """The default head, loss and metrics of each target field exist, and go with the field and each other."""
    own = [item for item in subject.host.components if item.task == subject.component.name]
    for field, defaults in cast(TaskSpec, subject.component.spec).targets.items():
        head = _default(own, "head", defaults.head, field)
        loss = _default(own, "loss", defaults.loss, field)
        heads = cast(LossSpec, loss.spec).heads
        if heads and head.name not in heads:
            raise Nonconformity(
                f"a default loss for the default head of `{field}`",
                f"{loss.name}, which is for {name_list(heads)}, not {head.name}",
            )
        for name in defaults.metrics:
            _default(own, "metric", name, field)
        if not defaults.metrics:
            raise Nonconformity(f"a default metric of `{field}`, by which the best checkpoint is chosen", "none")


@check("task")
def task_fit(subject: Subject) -> None:
    """fit() learns the same from the same data, whatever the global seeds are."""
    found = samples(subject)
    states = []
    for seed in (1, 2):
        with global_seeds(seed):
            task = new_task(subject)
            task.fit(found.train)
            states.append(task.state())
    other = difference(states[0], states[1])
    if other is not None:
        raise Nonconformity("the same state() of two tasks that are fitted on the same data", other)


@check("task")
def task_state(subject: Subject) -> None:
    """state() is JSON data, and a task that takes it back with load_state() is as the one that was fitted."""
    found = samples(subject)
    state: Any = found.task.state()
    if not isinstance(state, dict):
        raise Nonconformity("that state() gives a dict", kind(state))
    try:
        text = json.dumps(state, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Nonconformity("a state() that can be written as JSON", str(error)) from None
    changed = difference(state, json.loads(text))
    if changed is not None:
        raise Nonconformity("a state() that is the same when it is read from JSON", changed)
    loaded = new_task(subject)
    loaded.load_state(json.loads(text))
    changed = difference(state, loaded.state())
    if changed is not None:
        raise Nonconformity("after load_state() the same state()", changed)
    changed = difference(found.encoded(found.task), found.encoded(loaded))
    if changed is not None:
        raise Nonconformity("after load_state() an encoder that gives the same", f"item {changed}")


@check("task")
def task_encoder(subject: Subject) -> None:
    """The encoder makes named arrays of a target, which it leaves as it is; it can be pickled, for worker processes."""
    found = samples(subject)
    encoder = found.task.encoder(found.val, PLACE)
    copied = pickled(encoder, "an encoder", "as it is called in worker processes")
    for place in found.places:
        target = found.target(place)
        before = copy.deepcopy(target)
        encoded: Any = encoder(target)
        changed = difference(before, target)
        if changed is not None:
            raise Nonconformity("that the encoder leaves a target as it is", changed)
        if not isinstance(encoded, Mapping):
            raise Nonconformity("arrays by name from the encoder", kind(encoded))
        for name, array in encoded.items():
            if not isinstance(name, str) or not isinstance(array, np.ndarray):
                raise Nonconformity("arrays by name from the encoder", f"{kind(array)} for {name!r}")
        for what, other in (("a second time", encoder(target)), ("from a pickled encoder", copied(target))):
            changed = difference(encoded, other)
            if changed is not None:
                raise Nonconformity(f"the same {what}", changed)


@check("task")
def task_class_order(subject: Subject) -> None:
    """The encoder of a split that names the same classes in another order gives the training split's indices."""
    found = samples(subject)
    field = found.plan.field
    if field not in TARGET_FIELDS:
        raise NotApplicable(f"`{field}` is no field of the vocabulary: how it refers to its names is not known")
    turned = Turned(found.val, field)
    encoder = found.task.encoder(turned, PLACE)
    for place, encoded in enumerate(found.encoded(found.task)):
        target = dict(turned.target(place))
        if field == "mask":
            target["mask"] = turned.mask(place)
        changed = difference(encoded, encoder(target))
        if changed is not None:
            raise Nonconformity(f"the same of a split whose names of `{field}` are in the reverse order", changed)


@check("task")
def task_collate(subject: Subject) -> None:
    """collate() gives tensors whose first dimension is the batch's, or lists with a tensor for each sample."""
    found = samples(subject)
    for size in (1, len(found.places)):
        encoded = [dict(one) for one in found.encoded(found.task)[:size]]
        before = copy.deepcopy(encoded)
        targets: Any = found.task.collate(encoded)
        if not isinstance(targets, dict):
            raise Nonconformity("a dict from collate()", kind(targets))
        for name, value in targets.items():
            each = value if isinstance(value, list) else [value]
            wrong = next((one for one in each if not isinstance(one, Tensor)), None)
            if wrong is not None:
                raise Nonconformity(f"a tensor or a list of tensors as {name!r}", kind(wrong))
            if (len(value) if isinstance(value, list) or value.ndim else 0) != size:
                what = f"a list of {len(value)}" if isinstance(value, list) else kind(value)
                raise Nonconformity(f"{size} of {name!r} for a batch of {size}", what)
        changed = difference(before, encoded)
        if changed is not None:
            raise Nonconformity("that collate() leaves what it was given as it is", f"item {changed}")


@check("task")
def task_soften(subject: Subject) -> None:
    """soften() gives the targets that the spec calls `soft` as probabilities, float [B, C] in 0..1."""
    found = samples(subject)
    spec = cast(TaskSpec, subject.component.spec)
    others = [name for name in spec.soft if name not in spec.targets]
    if others:
        raise Nonconformity(f"target fields of the task as `soft`: {name_list(spec.targets)}", name_list(others))
    if found.plan.field not in spec.soft:
        raise NotApplicable(f"`{found.plan.field}` is not among the spec's `soft` fields")
    size = len(found.places)
    targets = found.task.collate(found.encoded(found.task))
    before = copy.deepcopy(targets)
    soft = found.task.soften(targets)
    changed = difference(before, targets)
    if changed is not None:
        raise Nonconformity("that soften() leaves the targets as they are", changed)
    if not soft or not set(soft) <= set(targets):
        raise Nonconformity(f"some of the targets from soften(): {name_list(targets)}", name_list(soft))
    for name, value in soft.items():
        shaped = isinstance(value, Tensor) and value.is_floating_point() and value.ndim == 2 and len(value) == size
        if not shaped:
            raise Nonconformity(f"probabilities of {name!r}, float [{size}, classes]", kind(value))
        if not bool(((value >= 0) & (value <= 1)).all()):
            raise Nonconformity(
                f"probabilities of {name!r} in 0..1", f"values from {float(value.min()):g} to {float(value.max()):g}"
            )


@check("task")
def task_strata(subject: Subject) -> None:
    """strata() and the groups of companions() are an int for each sample, the same each time, or None."""
    found = samples(subject)

    def groups() -> Any:
        companions: Any = found.task.companions(found.train)
        if companions is not None and not companions.count >= 2:
            raise Nonconformity("a count of 2 or more from companions()", str(companions.count))
        return None if companions is None else companions.groups

    for name, ask in (("strata()", lambda: found.task.strata(found.train)), ("companions()", groups)):
        given: Any = ask()
        if given is None:
            continue
        if not isinstance(given, np.ndarray) or given.dtype.kind not in "iu" or given.shape != (len(found.train),):
            raise Nonconformity(f"an array of ints, [{len(found.train)}], or None from {name}", kind(given))
        changed = difference(given, ask())
        if changed is not None:
            raise Nonconformity(f"the same {name} a second time", changed)


class Turned(Dataset):
    """A dataset whose names of one target field are in the reverse order, and with them what refers to them."""

    def __init__(self, data: Dataset, field: str) -> None:
        self.data = data
        self.field = field
        self.names = {**data.names, field: tuple(reversed(data.names[field]))}
        self.ids = {**data.ids, **({field: tuple(reversed(data.ids[field]))} if field in data.ids else {})}

    def __len__(self) -> int:
        return len(self.data)

    def target(self, index: int) -> Target:
        target = dict(self.data.target(index))
        last = len(self.names[self.field]) - 1
        if self.field == "label":
            target["label"] = last - int(target["label"])
        elif self.field == "boxes":
            target["box_labels"] = last - target["box_labels"]
        elif self.field in target:  # an entry for each name
            target[self.field] = target[self.field][::-1].copy()
        return target

    def image(self, index: int) -> np.ndarray:
        return self.data.image(index)

    def sample_id(self, index: int) -> str:
        return self.data.sample_id(index)

    def size(self, index: int) -> tuple[int, int] | None:
        return self.data.size(index)

    def mask(self, index: int) -> np.ndarray:
        mask = self.data.mask(index)
        classes = len(self.names["mask"])
        return np.where(mask < classes, classes - 1 - mask, mask).astype(np.uint8) if self.field == "mask" else mask


def _default(own: Sequence[Component], what: str, name: str, field: str) -> Component:
    """The head, loss or metric of that name; it must take the field."""
    known = {item.name: item for item in own if item.kind == what}
    if name not in known:
        raise Nonconformity(f"a default {what} of `{field}` that exists", unknown(what, name, known))
    fields = getattr(known[name].spec, "fields", ())
    if fields and field not in fields:
        raise Nonconformity(f"a default {what} that takes `{field}`", f"{name}, which takes {name_list(fields)}")
    return known[name]
