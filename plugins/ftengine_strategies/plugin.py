"""The catalogue of fine-tuning strategies: names for settings of the components that the other plugins bring."""

from __future__ import annotations

from collections.abc import Iterator

from ftengine.plugin import StrategySpec, hookimpl

FTENGINE_API = (1, 0)


@hookimpl
def register_strategies() -> Iterator[StrategySpec]:
    yield StrategySpec(
        name="full",
        summary="Everything trains at one rate.",
        settings={"freeze": "none"},
        when="many labels, or data unlike what the backbone was trained on",
    )
    yield StrategySpec(
        name="probe",
        summary="Only the heads train, on the frozen backbone's features (linear probing).",
        settings={"freeze": "all"},
        when="few labels, data like those the backbone was trained on, or little time",
    )
