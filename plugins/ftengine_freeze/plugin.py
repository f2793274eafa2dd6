"""Freeze policies: which part of a backbone does not train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from ftengine.plugin import FreezeSpec, Options, hookimpl

FTENGINE_API = (1, 0)

Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class StagesOptions(Options):
    """Exactly one of `through` and `only`."""

    through: str | None = Field(None, description="The last stage to freeze; all before it are frozen too.")
    only: Names | None = Field(None, description="The stages to freeze, in any order.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.through is None) == (self.only is None):
            given = "neither" if self.through is None else "both"
            raise ValueError(f"takes exactly one of 'through' and 'only', got {given}")
        return self


class PatternsOptions(Options):
    """Globs on parameter names."""

    patterns: Names = Field(
        description="Globs on the backbone's parameter names, <stage>.<name>; * also matches dots, as in 'c2.*.bn1.*'."
    )


@hookimpl
def register_freeze_policies() -> Iterator[FreezeSpec]:
    yield FreezeSpec(
        name="none",
        factory="ftengine_freeze.policies:none",
        summary="The whole backbone trains (full fine-tuning).",
    )
    yield FreezeSpec(
        name="all",
        factory="ftengine_freeze.policies:all_stages",
        summary="The whole backbone is frozen; only heads train (linear probing).",
    )
    yield FreezeSpec(
        name="stages",
        factory="ftengine_freeze.policies:stages",
        summary="The given stages are frozen: all through one, or those named.",
        options=StagesOptions,
    )
    yield FreezeSpec(
        name="patterns",
        factory="ftengine_freeze.policies:patterns",
        summary="The backbone's parameters whose names match a glob are frozen.",
        options=PatternsOptions,
    )
