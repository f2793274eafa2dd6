"""What acme-vision adds to ftengine. Nothing here imports torch."""

from typing import Literal

from pydantic import Field

from ftengine.plugin import BackboneSpec, FreezeSpec, HeadSpec, LossSpec, MetricSpec, Options, hookimpl

FTENGINE_API = (1, 0)


class TinyOptions(Options):
    width: int = Field(8, ge=1, description="Channels of the first stage; each stage doubles them.")
    norm: Literal["batch", "none"] = Field("batch", description="Normalisation after each convolution.")


class PrototypeOptions(Options):
    scale: float = Field(8.0, gt=0, description="Factor of the cosines before the softmax.")


class MarginOptions(Options):
    margin: float = Field(1.0, gt=0, description="How far the true class's logit must lie above the others.")


class FirstEpochsOptions(Options):
    epochs: int = Field(1, ge=1, description="Epochs at the start in which the backbone is frozen.")


@hookimpl
def register_backbones():
    yield BackboneSpec(
        name="tiny",
        factory="acme_vision.models:Tiny",
        summary="Three convolutions.",
        options=TinyOptions,
        levels=("c1", "c2", "c3"),
    )


@hookimpl
def register_heads():
    yield HeadSpec(
        name="prototypes",
        task="classification",
        factory="acme_vision.models:Prototypes",
        summary="Cosine to a learned prototype of each class.",
        options=PrototypeOptions,
    )


@hookimpl
def register_losses():
    yield LossSpec(
        name="margin",
        task="classification",
        factory="acme_vision.training:Margin",
        summary="Multi-class hinge loss.",
        options=MarginOptions,
        fields=("label",),
    )


@hookimpl
def register_metrics():
    yield MetricSpec(
        name="error_rate",
        task="classification",
        factory="acme_vision.training:ErrorRate",
        summary="Share of wrong answers.",
        primary="error_rate",
        mode="min",
        fields=("label",),
    )


@hookimpl
def register_freeze_policies():
    yield FreezeSpec(
        name="first_epochs",
        factory="acme_vision.training:FirstEpochs",
        summary="The whole backbone is frozen for the first epochs, and then trains.",
        options=FirstEpochsOptions,
    )
