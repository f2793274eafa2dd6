"""A cross-entropy that goes wrong once, while a file exists; an observer that raises while another one does."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from ftengine.plugin import DatasetOptions, DatasetSpec, LossSpec, Options, hookimpl

FTENGINE_API = (1, 0)


class FailingOptions(Options):
    at: int = Field(ge=1, description="The training batch of this process, from 1, at which it happens.")
    what: Literal["nan", "inf", "SIGINT", "SIGTERM", "SIGKILL", "SIGKILL once", "raise", "memory"] = Field(
        description="The loss's value, a signal to this process, an error, or a lack of memory."
    )
    rank: int | None = Field(None, description="It happens only in this process of the run.")
    trigger: Path = Field(description="It happens only while this file exists.")


class HiddenOptions(Options):
    what: Literal["randomness", "state"] = Field(description="What the engine cannot know of.")


class UnstableOptions(DatasetOptions):
    """The first 64 digits."""


@hookimpl
def register_datasets():
    yield DatasetSpec(
        name="unstable",
        factory="saboteur.datasets:unstable",
        summary="Digits with noise that is another each time.",
        options=UnstableOptions,
        fields=("label",),
    )


@hookimpl
def register_losses():
    yield LossSpec(
        name="hidden",
        task="classification",
        factory="saboteur.losses:Hidden",
        summary="Cross-entropy with randomness or state that the engine does not know of.",
        options=HiddenOptions,
        fields=("label",),
    )
    yield LossSpec(
        name="failing",
        task="classification",
        factory="saboteur.losses:Failing",
        summary="Cross-entropy until it fails.",
        options=FailingOptions,
        fields=("label",),
    )


@hookimpl
def metrics_logged(run, step, values):
    if "SABOTEUR_OBSERVER" in os.environ:
        raise ValueError("the observer has failed")
