"""Parameter-efficient fine-tuning, with the peft library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from ftengine.plugin import AdapterSpec, Options, hookimpl

FTENGINE_API = (1, 0)


class LoraOptions(Options):
    """Options of LoRA (Hu et al. 2022)."""

    rank: int = Field(8, ge=1, description="Rank of each update.")
    alpha: float = Field(16.0, gt=0, description="The update is scaled by alpha / rank.")
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout rate of what enters the update; there is none where a layer's weight is read without "
        "calling the layer, as torchvision's attention does.",
    )
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("*",),
        description="Globs on the names of the linear and convolutional layers to adapt, <stage>.<name>; the joint "
        "projection of torch's attention is <stage>.<name>.in_proj.",
    )


@hookimpl
def register_adapters() -> Iterator[AdapterSpec]:
    yield AdapterSpec(
        name="lora",
        factory="ftengine_peft.lora:lora",
        summary="Low-rank updates of linear and convolutional layers (arXiv:2106.09685).",
        options=LoraOptions,
        requires=("peft",),
    )
