"""Checks of metrics, on what a model of the small run predicts and on what would be right."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ftengine.errors import name_list
from ftengine.protocols import Metric
from ftengine.testing.checks import Nonconformity, NotApplicable, check
from ftengine.testing.material import Material, fed, material, new_metric
from ftengine.testing.same import difference, pickled
from ftengine.testing.subject import Subject

ROUNDING = 1e-5
"""How far sums of single-precision numbers may lie apart, relatively, that were added up in another order."""

BETWEEN_PROCESSES = "as it is on its way from one process of a run to another"


@check("metric")
def metric_values(subject: Subject) -> None:
    """compute() gives a number for each name, and the spec's `primary` and `others` are among them."""
    found = material(subject)
    for what, predictions in (("the model's", found.model), ("right and wrong", found.varied)):
        metric = fed(new_metric(subject), found, predictions, [range(len(predictions))])
        values: Any = metric.compute()
        if not isinstance(values, Mapping):
            raise Nonconformity("that compute() gives a dict of floats", type(values).__name__)
        for name, value in values.items():
            if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, int | float):
                raise Nonconformity("a float for each name", f"{type(value).__name__} for {name!r}")
        missing = [name for name in (subject.part.primary, *subject.part.spec.others) if name not in values]
        if missing:
            raise Nonconformity(
                f"the spec's {name_list(missing)} in what compute() gives",
                f"{name_list(values)}, of {what} predictions",
            )


@check("metric")
def metric_details(subject: Subject) -> None:
    """details() gives JSON data: a dict with text as keys, lists, text and Python's own numbers."""
    found = material(subject)
    details: Any = fed(new_metric(subject), found, found.varied, [range(len(found.items))]).details()
    if not isinstance(details, dict):
        raise Nonconformity("that details() gives a dict", type(details).__name__)
    try:
        again = json.loads(json.dumps(details))
    except (TypeError, ValueError) as error:
        raise Nonconformity("details() that can be written as JSON", str(error)) from None
    changed = difference(details, again)
    if changed is not None:
        raise Nonconformity("details() that are the same when they are read from JSON", changed)


@check("metric")
def metric_grouping(subject: Subject) -> None:
    """A split gives the same values in batches of any size as in one."""
    found = material(subject)
    size = len(found.items)
    for what, predictions in (("the model's", found.model), ("right and wrong", found.varied)):
        whole = answers(fed(new_metric(subject), found, predictions, [range(size)]))
        for groups in ([[place] for place in range(size)], [[0], range(1, size)], [range(size - 1), [size - 1]]):
            other = difference(whole, answers(fed(new_metric(subject), found, predictions, groups)), ROUNDING)
            if other is not None:
                sizes = ", ".join(str(len(places)) for places in groups)
                raise Nonconformity(
                    f"the same from batches of {sizes} samples as from one of {size}", f"{other}, of {what} predictions"
                )


@check("metric")
def metric_merge(subject: Subject) -> None:
    """merge(other) is as if what the other has seen had been seen here, after what has been."""
    found = material(subject)
    size = len(found.items)
    whole = answers(_seen(subject, found, 0, size))
    for first, second in ((1, 2), (0, size), (size, size)):
        here, there = _seen(subject, found, 0, first), _seen(subject, found, first, second)
        here.merge(pickled(there, "a metric", BETWEEN_PROCESSES))
        fed(here, found, found.varied, [range(second, size)] if second < size else [])
        other = difference(whole, answers(here), ROUNDING)
        if other is not None:
            seen = f"of a metric that has seen {first} samples, merges one that has seen {second - first}"
            raise Nonconformity(f"{seen}, and sees {size - second} more, what {size} samples give in one batch", other)


@check("metric")
def metric_reset(subject: Subject) -> None:
    """After reset() a metric is as new."""
    found = material(subject)
    size = len(found.items)
    metric = _seen(subject, found, 0, size - 1)
    metric.compute()
    metric.reset()
    other = difference(
        answers(_seen(subject, found, 1, size)), answers(fed(metric, found, found.varied, [range(1, size)]))
    )
    if other is not None:
        raise Nonconformity("after reset() what a new metric gives", other)


@check("metric")
def metric_compute_repeats(subject: Subject) -> None:
    """compute() and details() give the same each time, and what comes later is not changed by them."""
    found = material(subject)
    size = len(found.items)
    metric = _seen(subject, found, 0, 1)
    first = answers(metric)
    again = difference(first, answers(metric))
    if again is not None:
        raise Nonconformity("the same from a second compute() and details()", again)
    other = difference(
        answers(fed(_seen(subject, found, 0, 1), found, found.varied, [range(1, size)])),
        answers(fed(metric, found, found.varied, [range(1, size)])),
    )
    if other is not None:
        raise Nonconformity(f"after {size - 1} more samples the same as without a compute() before them", other)


@check("metric")
def metric_inputs(subject: Subject) -> None:
    """update() leaves the predictions and targets as they are, which other metrics get as well."""
    found = material(subject)
    places = range(len(found.items))
    metric = new_metric(subject)
    predictions, targets = copy.deepcopy(found.varied), found.targets(places)
    metric.update(predictions, targets)
    answers(metric)
    for what, before, after in (
        ("predictions", found.varied, predictions),
        ("targets", found.targets(places), targets),
    ):
        changed = difference(before, after)
        if changed is not None:
            raise Nonconformity(f"the {what} that update() was given as they were", changed)


@check("metric")
def metric_pickles(subject: Subject) -> None:
    """A metric that has seen something can be pickled, and goes on as the one that it is a copy of."""
    found = material(subject)
    size = len(found.items)
    copied = pickled(_seen(subject, found, 0, 1), "a metric", BETWEEN_PROCESSES)
    other = difference(
        answers(fed(_seen(subject, found, 0, 1), found, found.varied, [range(1, size)])),
        answers(fed(copied, found, found.varied, [range(1, size)])),
    )
    if other is not None:
        raise Nonconformity("of a pickled metric what its original gives", other)


@check("metric")
def metric_mode(subject: Subject) -> None:
    """Perfect predictions are no worse than those of an untrained model, by the spec's `mode`."""
    found = material(subject)
    if found.perfect is None:
        raise NotApplicable(f"the task {found.plan.task.component.name} has no method `perfect`")
    places = [range(len(found.items))]
    perfect = fed(new_metric(subject), found, found.perfect, places).compute()
    model = fed(new_metric(subject), found, found.model, places).compute()
    mode = subject.part.spec.mode
    sign = 1 if mode == "max" else -1
    defined = 0
    for name in (subject.part.primary, *subject.part.spec.others):
        best, other = (float(values.get(name, math.nan)) for values in (perfect, model))
        if math.isnan(best) or math.isnan(other):
            continue
        defined += 1
        if sign * best < sign * other - ROUNDING * max(1.0, abs(best)):
            raise Nonconformity(
                f"perfect predictions to be no worse by mode {mode!r} than those of an untrained model",
                f"{name} {best:g} for the perfect ones, {other:g} for the model's",
            )
    if not defined:
        raise NotApplicable("the small run's samples define none of its values")


def answers(metric: Metric) -> dict[str, Any]:
    """All that a metric says."""
    return {"compute()": metric.compute(), "details()": metric.details()}


def _seen(subject: Subject, found: Material, start: int, stop: int) -> Metric:
    """A new metric that has seen the samples from `start` to `stop` in one batch; of none, no batch."""
    groups: Sequence[Sequence[int]] = [range(start, stop)] if start < stop else []
    return fed(new_metric(subject), found, found.varied, groups)
