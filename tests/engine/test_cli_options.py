"""Options models as rows."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from ftengine.cli_options import option_rows
from ftengine.plugin import Options


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    size: int
    name: str = ""


class Everything(Options):
    required: int
    integer: int = Field(3, ge=1, le=9)
    real: float = Field(0.5, gt=0, lt=1)
    flag: bool = False
    text: str | None = None
    choice: Literal["a", "b", 3] = "a"
    one: Literal["only"] = "only"
    colour: Colour = Colour.RED
    path: Path = Path("here")
    names: list[str] = Field(default_factory=list, description="Some\n  names.")
    pair: tuple[int, float] = (1, 2.0)
    mapping: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=lambda: {"x": 1})
    part: Part = Part(size=1)
    either: int | list[int] = 1
    anything: Any = None


ROWS = {row.name: row for row in option_rows(Everything)}


@pytest.mark.parametrize(
    ("name", "type_text", "default"),
    [
        ("required", "int", None),
        ("integer", "int >= 1, <= 9", 3),
        ("real", "float > 0, < 1", 0.5),
        ("flag", "bool", False),
        ("text", "str | null", None),
        ("choice", "a | b | 3", "a"),
        ("one", "only", "only"),
        ("colour", "red | blue", "red"),
        ("path", "path", "here"),
        ("names", "list of str", []),
        ("pair", "[int, float]", [1, 2.0]),
        ("mapping", "mapping to int >= 0", {"x": 1}),
        ("part", "mapping of size, name", {"size": 1, "name": ""}),
        ("either", "int | list of int", 1),
        ("anything", "any", None),
    ],
)
def test_types_and_defaults(name, type_text, default):
    assert (ROWS[name].type, ROWS[name].default) == (type_text, default)


def test_order_required_and_description():
    assert list(ROWS) == list(Everything.model_fields)
    assert [name for name, row in ROWS.items() if row.required] == ["required"]
    assert ROWS["names"].description == "Some names."


def test_no_options():
    assert option_rows(Options) == []
