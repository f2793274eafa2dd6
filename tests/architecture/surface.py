"""Everything of ftengine that a plugin may use, as text.

``uv run python tests/architecture/surface.py`` writes it to public_surface.txt, which the tests compare with the code.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pluggy import HookimplMarker
from pydantic import BaseModel

from ftengine.plugin import API_VERSION

FILE = Path(__file__).with_name("public_surface.txt")

MODULES = (
    "ftengine.plugin",
    "ftengine.protocols",
    "ftengine.errors",
    "ftengine.images",
    "ftengine.pictures",
    "ftengine.testing",
)
SPECIAL = ("__init__", "__len__", "__getitem__", "__call__")
"""Of the methods with underscores, those that people call or write."""


def render():
    """A line for each name, field and method, so that a difference of two versions reads as what has changed."""
    lines = [f"plugin API {API_VERSION[0]}.{API_VERSION[1]}"]
    for name in MODULES:
        module = importlib.import_module(name)
        lines += ["", name]
        for public in _names(module):
            lines += [f"  {line}" for line in _member(public, getattr(module, public))]
    return "\n".join(lines) + "\n"


def _names(module):
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return sorted(getattr(module, "__all__", [name for name in own if not name.startswith("_")]))


def _member(name, value):
    if inspect.isclass(value):
        return _class(name, value)
    if inspect.isfunction(value):
        return [f"def {name}{_signature(value)}"]
    if isinstance(value, HookimplMarker):
        return [f"{name} = HookimplMarker({value.project_name!r})"]
    if isinstance(value, Mapping):  # the texts in a vocabulary may be worded better; its words are what is public
        return [f"{name}: {', '.join(map(repr, value))}"]
    if isinstance(value, frozenset):
        value = sorted(value)
    return [f"{name} = {_text(value)}"]


def _class(name, kind):
    bases = [base.__name__ for base in kind.__bases__ if base is not object]
    lines = [f"class {name}({', '.join(bases)})" if bases else f"class {name}"]
    if dataclasses.is_dataclass(kind):
        own = inspect.get_annotations(kind)
        lines += [f"  {_field(field)}" for field in dataclasses.fields(kind) if field.name in own]
    elif issubclass(kind, BaseModel):
        for key, field in kind.model_fields.items():
            lines += [f"  {key}: {_annotation(field.annotation)} = {_text(field.default)}"]
        settings = ", ".join(f"{key}={setting!r}" for key, setting in sorted(kind.model_config.items()))
        lines += [f"  model_config: {settings}"]
    else:
        lines += [f"  {line}" for line in _attributes(kind)]
    return lines + [f"  {line}" for line in _methods(kind)]


def _field(field):
    default = ""
    if field.default is not dataclasses.MISSING:
        default = f" = {_text(field.default)}"
    elif field.default_factory is not dataclasses.MISSING:
        default = f" = {_text(field.default_factory())}"
    return f"{field.name}: {_annotation(field.type)}{default}" + ("  # by keyword" if field.kw_only else "")


def _attributes(kind):
    annotations = inspect.get_annotations(kind)
    plain = {
        name: value
        for name, value in vars(kind).items()
        if not callable(value) and not isinstance(value, property | classmethod | staticmethod)
    }
    for name in dict.fromkeys([*annotations, *plain]):
        if not name.startswith("_"):
            stated = f": {_annotation(annotations[name])}" if name in annotations else ""
            yield f"{name}{stated}" + (f" = {_text(plain[name])}" if name in plain else "")


def _methods(kind):
    generated = dataclasses.is_dataclass(kind) or issubclass(kind, BaseModel) or Protocol in kind.__bases__
    for name, member in vars(kind).items():
        special = name in SPECIAL and not (name == "__init__" and generated)
        if name.startswith("_") and not special:
            continue
        abstract = "abstract " if getattr(member, "__isabstractmethod__", False) else ""
        if isinstance(member, property):
            yield f"{abstract}property {name}{_signature(member.fget)}"
        elif isinstance(member, classmethod):
            yield f"{abstract}classmethod {name}{_signature(member.__func__)}"
        elif inspect.isfunction(member):
            yield f"{abstract}def {name}{_signature(member)}"


class _Bare(str):
    """An annotation in the source's words, which a signature shows without quotes."""

    __slots__ = ()

    def __repr__(self):
        return str(self)


def _signature(function):
    signature = inspect.signature(function)
    parameters = [one.replace(annotation=_bare(one.annotation)) for one in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=_bare(signature.return_annotation))


def _bare(annotation):
    return _Bare(annotation) if isinstance(annotation, str) else annotation


def _annotation(annotation):
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _text(value):
    """A default as it is written, the same on every system and in every process."""
    if isinstance(value, Path):
        return f"Path({str(value)!r})"
    return value.__name__ if isinstance(value, type) else repr(value)


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
