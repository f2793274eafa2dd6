"""What the classification plugin offers. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator

from ftengine.plugin import Defaults, HeadSpec, LossSpec, MetricSpec, TaskSpec, hookimpl
from ftengine_classification import options

FTENGINE_API = (1, 0)


@hookimpl
def register_tasks() -> Iterator[TaskSpec]:
    yield TaskSpec(
        name="classification",
        factory="ftengine_classification.task:Classification",
        summary="One class for each image (label), or any number of them (labels).",
        options=options.TaskOptions,
        targets={
            "label": Defaults(head="linear", loss="cross_entropy", metrics=("accuracy", "f1")),
            "labels": Defaults(head="linear", loss="binary_cross_entropy", metrics=("f1", "auroc")),
        },
        soft=("label", "labels"),
    )


@hookimpl
def register_heads() -> Iterator[HeadSpec]:
    yield HeadSpec(
        name="linear",
        task="classification",
        factory="ftengine_classification.heads:linear",
        summary="Global average pooling and one linear layer.",
        options=options.LinearOptions,
    )
    yield HeadSpec(
        name="mlp",
        task="classification",
        factory="ftengine_classification.heads:mlp",
        summary="Global average pooling and a multi-layer perceptron.",
        options=options.MlpOptions,
    )


@hookimpl
def register_losses() -> Iterator[LossSpec]:
    yield LossSpec(
        name="cross_entropy",
        task="classification",
        factory="ftengine_classification.losses:CrossEntropy",
        summary="Softmax cross-entropy, with label smoothing and class weights.",
        options=options.CrossEntropyOptions,
        fields=("label",),
        soft=True,
    )
    yield LossSpec(
        name="focal",
        task="classification",
        factory="ftengine_classification.losses:Focal",
        summary="Focal loss, of the softmax (single-label) or the sigmoids (multi-label).",
        options=options.FocalOptions,
        fields=("label", "labels"),
        soft=True,
    )
    yield LossSpec(
        name="binary_cross_entropy",
        task="classification",
        factory="ftengine_classification.losses:BinaryCrossEntropy",
        summary="Sigmoid cross-entropy of each class, with label smoothing and weights of the positives.",
        options=options.BinaryCrossEntropyOptions,
        fields=("labels",),
        soft=True,
    )


@hookimpl
def register_metrics() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="accuracy",
        task="classification",
        factory="ftengine_classification.metrics:accuracy",
        summary="Share of right answers: images (single-label), or yes-or-no decisions (multi-label).",
        primary="accuracy",
        fields=("label", "labels"),
    )
    yield MetricSpec(
        name="top_k",
        task="classification",
        factory="ftengine_classification.metrics:top_k",
        summary="Share of images whose class is among the k most probable, as top<k>_accuracy.",
        options=options.TopKOptions,
        primary="top{k}_accuracy",
        fields=("label",),
    )
    yield MetricSpec(
        name="exact_match",
        task="classification",
        factory="ftengine_classification.metrics:exact_match",
        summary="Share of images whose classes are all right (subset accuracy).",
        primary="exact_match",
        fields=("labels",),
    )
    for name, summary in (
        ("precision", "Of the images said to be of a class, the share that is."),
        ("recall", "Of the images of a class, the share that was found."),
        ("f1", "Harmonic mean of precision and recall."),
    ):
        yield MetricSpec(
            name=name,
            task="classification",
            factory=f"ftengine_classification.metrics:{name}",
            summary=summary,
            options=options.AverageOptions,
            primary=name,
            fields=("label", "labels"),
        )
    yield MetricSpec(
        name="auroc",
        task="classification",
        factory="ftengine_classification.metrics:auroc",
        summary="Area under the ROC curve, one class against the rest, mean over classes.",
        options=options.AurocOptions,
        primary="auroc",
        fields=("label", "labels"),
    )
    yield MetricSpec(
        name="confusion_matrix",
        task="classification",
        factory="ftengine_classification.metrics:confusion_matrix",
        summary="Which class was taken for which; as a number, the balanced accuracy.",
        primary="balanced_accuracy",
        fields=("label", "labels"),
    )
