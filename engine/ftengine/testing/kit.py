"""The whole kit: importing this module registers every check, in the order in which they run."""

from ftengine.testing import (
    adapters,
    backbone_parameters,
    backbones,
    components,
    datasets,
    heads,
    losses,
    metrics,
    policies,
    predictions,
    regularizers,
    runs,
    sizes,
    strategies,
    task_answers,
    tasks,
)
from ftengine.testing.checks import CHECKS, Check, checks_for, find_check, run_check, run_checks

__all__ = ["CHECKS", "Check", "checks_for", "find_check", "run_check", "run_checks"]

_ORDER = [
    module.__name__
    for module in (
        components,
        backbones,
        backbone_parameters,
        heads,
        predictions,
        sizes,
        losses,
        metrics,
        tasks,
        task_answers,
        datasets,
        policies,
        regularizers,
        adapters,
        strategies,
        runs,
    )
]
# Whichever of them was imported first: the order is the same in every process.
CHECKS.sort(key=lambda one: _ORDER.index(one.run.__module__) if one.run.__module__ in _ORDER else len(_ORDER))
