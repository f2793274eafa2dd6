"""How a config names components: by a name, or with options beside it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

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


class LossRef(Ref):
    """A loss by name, with its factor in the sum of several."""

    weight: float = Field(1.0, gt=0, description="Factor of this loss in the task's.")


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str | dict | BaseModel) else value


Losses = Annotated[tuple[LossRef, ...], BeforeValidator(_several), Field(min_length=1)]
"""One loss, or a list of them."""


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
