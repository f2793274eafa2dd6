"""How a config names components: by a name, or with options beside it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema


class Section(BaseModel):
    """A part of the config with a fixed set of keys.

    `shorthand`: JSON Schemas of other ways to write it; `forms`: all ways to write it, for messages.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    shorthand: ClassVar[tuple[dict[str, Any], ...]] = ()
    forms: ClassVar[str] = "a mapping"

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [schema, *cls.shorthand]} if cls.shorthand else schema


class Ref(BaseModel):
    """A component by name, with its options: ``linear`` or ``{name: linear, dropout: 0.1}``."""

    model_config = ConfigDict(extra="allow", frozen=True)
    forms: ClassVar[str] = "a name, or a mapping with `name`"

    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """The options as written."""
        return dict(self.model_extra or {})


class Weights(Section):
    """Where pretrained weights come from, and which mismatches are expected."""

    shorthand = ({"type": "string"},)
    forms = "a source, or a mapping with `source`"

    source: str = Field(description="default | a name of published weights | none | a file | run:DIR")
    allow: tuple[str, ...] = Field(
        (), description="Globs on parameter names that may be missing, unexpected or of another shape."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_source(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value


class BackboneRef(Ref):
    """A backbone by name, with where its weights come from."""

    weights: Weights = Field(Weights(source="default"), description="Pretrained weights to start from.")


class HeadRef(Ref):
    """A head by name, with the published weights that it and the backbone are loaded with together."""

    weights: str | None = Field(
        None, description="Published weights of head and backbone together (coco); instead of backbone.weights."
    )


class FreezeRef(Ref):
    """A freeze policy by name, with what frozen and unfreezing parts do."""

    name: str = "none"
    frozen_norm: Literal["eval", "train"] = Field(
        "eval",
        description="Mode of the normalisation layers of frozen parts; train: BatchNorm goes on with each batch's "
        "statistics and updates its running ones.",
    )
    warmup_epochs: float = Field(
        0.0, ge=0, description="Epochs in which the learning rate of a part that unfreezes rises linearly."
    )


class LrRule(Section):
    """Learning rate and weight decay of the parameters that a glob matches."""

    params: str = Field(
        min_length=1, description="Glob on names as <stage>.<name> or head.<name>; * also matches dots."
    )
    lr_mult: float | None = Field(None, ge=0, description="Factor of the optimizer's lr, instead of the place's.")
    weight_decay: float | None = Field(None, ge=0, description="Weight decay, instead of the optimizer's.")

    @model_validator(mode="after")
    def _something(self) -> LrRule:
        if self.lr_mult is None and self.weight_decay is None:
            raise ValueError("takes `lr_mult`, `weight_decay` or both, got neither")
        return self


class OptimizerRef(Ref):
    """An optimizer by name, with learning rates and weight decay by place."""

    name: str = "adamw"
    backbone_lr_mult: float = Field(1.0, gt=0, description="Factor of `lr` for the backbone.")
    head_lr_mult: float = Field(1.0, gt=0, description="Factor of `lr` for the heads, and losses that learn.")
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Factor from each stage's rate to that of the stage before it, beginning below the heads.",
    )
    decay: Literal["all", "weights"] = Field(
        "all", description="What weight decay acts on; weights: neither biases nor normalisation layers."
    )
    rules: tuple[LrRule, ...] = Field((), description="Exceptions by glob; the first that matches counts.")


class ScheduleRef(Ref):
    """A schedule by name."""

    name: str = "cosine"


class LossRef(Ref):
    """A loss by name, with its factor in the sum of several."""

    weight: float = Field(1.0, gt=0, description="Factor of this loss in the task's.")


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str | dict | BaseModel) else value


Losses = Annotated[tuple[LossRef, ...], BeforeValidator(_several), Field(min_length=1)]
"""One loss, or a list of them."""

Refs = Annotated[tuple[Ref, ...], BeforeValidator(_several)]
"""One component, or a list of them."""


class DataRef(BaseModel):
    """Where the images and labels are: a format, and that format's options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    forms: ClassVar[str] = "a format, or a mapping with `format`"

    format: str = Field(description="Name of a dataset component.")

    @model_validator(mode="before")
    @classmethod
    def _from_format(cls, value: Any) -> Any:
        return {"format": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """The options as written."""
        return dict(self.model_extra or {})
