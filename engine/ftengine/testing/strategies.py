"""Checks of strategies: that their settings can be had, come into effect, and train."""

from __future__ import annotations

from typing import Any, cast

from ftengine.document import Document
from ftengine.errors import ConfigError, TrainingError
from ftengine.identical import tensor_difference
from ftengine.resolve import resolve
from ftengine.specs import StrategySpec
from ftengine.strategy import NAMED
from ftengine.testing.checks import Nonconformity, check
from ftengine.testing.policies import take_steps
from ftengine.testing.subject import Subject, merged

STEPS = 2


@check("strategy")
def strategy_takes_effect(subject: Subject) -> None:
    """The small run resolves with it, and is the one that has its settings written out."""
    try:
        plan = subject.plan
    except ConfigError as error:
        raise Nonconformity("settings that a config can have", str(error)) from None
    written = {key: value for key, value in subject.config.items() if key != "strategy"}
    for section, value in cast(StrategySpec, subject.component.spec).settings.items():
        own: Any = {"name": value} if section in NAMED and isinstance(value, str) else value
        written = merged(written, {section: own})
    first, second = resolve(Document(written)).resolved(), plan.resolved()
    for section, value in first.items():
        if second[section] != value:
            raise Nonconformity(f"`{section}` as it sets it: {value}", f"{second[section]}")


@check("strategy")
def strategy_trains(subject: Subject) -> None:
    """Two steps of the small run with it have finite losses, and change the model."""
    run = subject.training()
    run.begin_epoch(0)
    before = {name: parameter.detach().clone() for name, parameter in run.model.named_parameters()}
    try:
        take_steps(run, STEPS)
        run.check_numbers()
    except TrainingError as error:
        raise Nonconformity(f"{STEPS} steps with finite losses", str(error)) from None
    if not any(tensor_difference(before[name], parameter) for name, parameter in run.model.named_parameters()):
        raise Nonconformity(f"that {STEPS} steps move a weight", "that none has moved")
