"""What this plugin adds. Every command of ftengine imports this module, so it must not import torch."""

from collections.abc import Iterator

from ftengine.plugin import (
    AdapterSpec,
    BackboneSpec,
    DatasetOptions,
    DatasetSpec,
    Defaults,
    FreezeSpec,
    HeadSpec,
    LossSpec,
    MetricSpec,
    Options,
    RegularizerSpec,
    StrategySpec,
    TaskSpec,
    hookimpl,
)
from pydantic import Field

FTENGINE_API = (1, 0)


class OneVsRestOptions(Options):
    positive: str | None = Field(None, description="The class to tell from all others; the first one if left out.")


class TinyOptions(Options):
    width: int = Field(16, ge=1, description="Channels of the first stage; each further one has twice as many.")


class MaxPooledOptions(Options):
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping a pooled feature in training.")


class TemperedOptions(Options):
    temperature: float = Field(1.0, gt=0, description="What the logits are divided by.")


class HeadFirstOptions(Options):
    epochs: int = Field(1, ge=0, description="Epochs at the start in which the head trains alone.")


class QuietOptions(Options):
    strength: float = Field(0.01, gt=0, description="Factor of the features' mean square.")


class StripesOptions(DatasetOptions):
    count: int = Field(200, ge=2, description="How many images there are.")


@hookimpl
def register_tasks() -> Iterator[TaskSpec]:
    yield TaskSpec(
        name="one_vs_rest",
        factory="my_plugin.data:OneVsRest",
        summary="Whether an image is of one class or of any other.",
        options=OneVsRestOptions,
        targets={"label": Defaults(head="max_pooled", loss="tempered", metrics=("error_rate",))},
    )


@hookimpl
def register_backbones() -> Iterator[BackboneSpec]:
    yield BackboneSpec(
        name="tiny",
        factory="my_plugin.models:tiny",
        summary="Three convolutions.",
        options=TinyOptions,
        levels=("c1", "c2", "c3"),
    )


@hookimpl
def register_heads() -> Iterator[HeadSpec]:
    yield HeadSpec(
        name="max_pooled",
        task="one_vs_rest",
        factory="my_plugin.models:MaxPooled",
        summary="Global max pooling and one linear layer.",
        options=MaxPooledOptions,
    )


@hookimpl
def register_losses() -> Iterator[LossSpec]:
    yield LossSpec(
        name="tempered",
        task="one_vs_rest",
        factory="my_plugin.training:Tempered",
        summary="Cross-entropy at a temperature.",
        options=TemperedOptions,
        fields=("label",),
    )


@hookimpl
def register_metrics() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="error_rate",
        task="one_vs_rest",
        factory="my_plugin.training:ErrorRate",
        summary="Share of wrong answers.",
        primary="error_rate",
        mode="min",
        fields=("label",),
    )


@hookimpl
def register_freeze_policies() -> Iterator[FreezeSpec]:
    yield FreezeSpec(
        name="head_first",
        factory="my_plugin.training:HeadFirst",
        summary="The head trains alone for some epochs, then everything does.",
        options=HeadFirstOptions,
    )


@hookimpl
def register_regularizers() -> Iterator[RegularizerSpec]:
    yield RegularizerSpec(
        name="quiet",
        factory="my_plugin.training:Quiet",
        summary="The mean square of the last level's features.",
        options=QuietOptions,
    )


@hookimpl
def register_adapters() -> Iterator[AdapterSpec]:
    yield AdapterSpec(
        name="scales",
        factory="my_plugin.models:Scales",
        summary="A factor for each output channel of each convolution.",
    )


@hookimpl
def register_strategies() -> Iterator[StrategySpec]:
    yield StrategySpec(
        name="gentle",
        summary="Early stages at lower rates, and an average of the weights over the last steps.",
        when="few labels, and images like those the backbone has seen",
        settings={"optimizer": {"layer_decay": 0.7}, "train": {"ema": {"decay": 0.9}}},
    )


@hookimpl
def register_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        name="stripes",
        factory="my_plugin.data:Stripes",
        summary="Noisy stripes, upright or lying, drawn as they are asked for.",
        options=StripesOptions,
        fields=("label",),
    )
