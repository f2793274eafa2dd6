"""What the regression plugin offers. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator

from ftengine.plugin import Defaults, HeadSpec, LossSpec, MetricSpec, TaskSpec, hookimpl
from ftengine_regression import options

FTENGINE_API = (1, 0)


@hookimpl
def register_tasks() -> Iterator[TaskSpec]:
    yield TaskSpec(
        name="regression",
        factory="ftengine_regression.task:Regression",
        summary="One or several numbers for each image.",
        options=options.TaskOptions,
        targets={"values": Defaults(head="linear", loss="mse", metrics=("mae", "rmse", "r2"))},
    )


@hookimpl
def register_heads() -> Iterator[HeadSpec]:
    yield HeadSpec(
        name="linear",
        task="regression",
        factory="ftengine_regression.heads:linear",
        summary="Global average pooling and one linear layer.",
        options=options.LinearOptions,
    )
    yield HeadSpec(
        name="mlp",
        task="regression",
        factory="ftengine_regression.heads:mlp",
        summary="Global average pooling and a multi-layer perceptron.",
        options=options.MlpOptions,
    )


@hookimpl
def register_losses() -> Iterator[LossSpec]:
    for name, summary, model in (
        ("mse", "Squared error of the standardised targets.", options.LossOptions),
        ("l1", "Absolute error of the standardised targets.", options.LossOptions),
        ("huber", "Squared error up to delta, linear beyond it, of the standardised targets.", options.HuberOptions),
    ):
        yield LossSpec(
            name=name,
            task="regression",
            factory=f"ftengine_regression.losses:{name}",
            summary=summary,
            options=model,
            fields=("values",),
        )


@hookimpl
def register_metrics() -> Iterator[MetricSpec]:
    for name, summary in (
        ("mae", "Mean absolute error, in the targets' units."),
        ("rmse", "Root of the mean squared error, in the targets' units."),
        ("mape", "Mean absolute error as a share of the true value (0.1 is 10 %)."),
    ):
        yield MetricSpec(
            name=name,
            task="regression",
            factory=f"ftengine_regression.metrics:{name}",
            summary=summary,
            primary=name,
            mode="min",
            fields=("values",),
        )
    yield MetricSpec(
        name="r2",
        task="regression",
        factory="ftengine_regression.metrics:r2",
        summary="Coefficient of determination: share of the targets' variance that is explained.",
        primary="r2",
        fields=("values",),
    )
