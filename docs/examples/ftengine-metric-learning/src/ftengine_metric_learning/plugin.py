"""What the package offers. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator

from ftengine.plugin import DatasetSpec, Defaults, HeadSpec, LossSpec, MetricSpec, TaskSpec, hookimpl
from ftengine_metric_learning import options

FTENGINE_API = (1, 1)


@hookimpl
def register_tasks() -> Iterator[TaskSpec]:
    yield TaskSpec(
        name="embedding",
        factory="ftengine_metric_learning.task:EmbeddingTask",
        summary="A vector for each image, close to those of its class; the classes may be new ones in evaluation.",
        options=options.TaskOptions,
        targets={"label": Defaults(head="embedding", loss="arcface", metrics=("retrieval", "verification"))},
    )


@hookimpl
def register_heads() -> Iterator[HeadSpec]:
    yield HeadSpec(
        name="embedding",
        task="embedding",
        factory="ftengine_metric_learning.head:embedding",
        summary="Global average pooling, one linear layer, and a length of 1.",
        options=options.HeadOptions,
    )


@hookimpl
def register_losses() -> Iterator[LossSpec]:
    for name, summary, model in (
        ("arcface", "ArcFace: softmax over learned class directions, with an angle as margin.", options.ArcFaceOptions),
        ("triplet", "Triplet margin loss, over triplets that a miner chooses.", options.TripletOptions),
        ("contrastive", "Contrastive loss: pairs of a class together, others apart.", options.ContrastiveOptions),
    ):
        yield LossSpec(
            name=name,
            task="embedding",
            factory=f"ftengine_metric_learning.losses:{name}",
            summary=summary,
            options=model,
            fields=("label",),
        )


@hookimpl
def register_metrics() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="retrieval",
        task="embedding",
        factory="ftengine_metric_learning.metrics:Retrieval",
        summary="Each image asks for the others of its class: recall@k and MAP@R.",
        options=options.RetrievalOptions,
        primary="map_at_r",
        others=("recall_at_1",),
        fields=("label",),
    )
    yield MetricSpec(
        name="verification",
        task="embedding",
        factory="ftengine_metric_learning.metrics:Verification",
        summary="Whether two images are of one class: ROC AUC, best accuracy, true accepts at a rate of false ones.",
        options=options.VerificationOptions,
        primary="verification_auc",
        others=("verification_accuracy", "verification_tar"),
        fields=("label",),
    )


@hookimpl
def register_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        name="folder",
        factory="ftengine_metric_learning.datasets:folder",
        summary="One folder with one folder a class; splits have classes of their own.",
        options=options.FolderOptions,
        fields=("label",),
    )
    yield DatasetSpec(
        name="digits",
        factory="ftengine_metric_learning.datasets:digits",
        summary="scikit-learn's handwritten digits, alone or side by side; splits have classes of their own.",
        options=options.DigitsOptions,
        fields=("label",),
        example={"limit": 8},
    )
