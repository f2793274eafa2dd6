"""What pydantic finds wrong, in the words of a person who writes a config."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ftengine.document import Document, KeyPath
from ftengine.errors import Problem, unknown

TYPES = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a string",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
}
LIMITS = {
    "greater_than_equal": "at least {ge:.15g}",
    "greater_than": "more than {gt:.15g}",
    "less_than_equal": "at most {le:.15g}",
    "less_than": "less than {lt:.15g}",
    "too_short": "a length of at least {min_length}",
    "too_long": "a length of at most {max_length}",
    "string_too_short": "a length of at least {min_length}",
    "string_too_long": "a length of at most {max_length}",
}


@dataclass
class _Mistake:
    """One of pydantic's errors. `branch`: it is what one branch of a union says of the value as a whole."""

    path: KeyPath
    branch: bool
    expected: str
    message: str
    found: Any


def validation_problems(
    error: ValidationError, model: type[BaseModel], prefix: KeyPath, document: Document, also: Iterable[str] = ()
) -> list[Problem]:
    """pydantic's errors as problems: the place in the file, what was found, what was expected, the nearest key.

    What the branches of a union each say of one value becomes one problem. `also` are keys that stand beside the
    model's own, such as a component's name.
    """
    mistakes = [_mistake(item, model, list(also)) for item in error.errors(include_url=False)]
    inner = {mistake.path[:length] for mistake in mistakes for length in range(len(mistake.path))}
    problems: dict[KeyPath, list[_Mistake]] = {}
    for mistake in mistakes:
        if mistake.branch and mistake.path in inner:
            continue  # another branch accepts the value's form, and says what is wrong inside it
        problems.setdefault(mistake.path, []).append(mistake)
    found = [document.problem((*prefix, *path), _sentence(group)) for path, group in problems.items()]
    return list(dict.fromkeys(found))  # one number that stands for a pair is wrong once


def _mistake(item: ErrorDetails, model: type[BaseModel], also: list[str]) -> _Mistake:
    raw, kind = item["loc"], item["type"]
    path = tuple(key for key in raw if not _is_union_branch(key))
    branch = bool(raw) and _is_union_branch(raw[-1])
    expected, message = "", ""
    if kind == "extra_forbidden":
        message = unknown("key", str(path[-1]), _fields_at(model, path[:-1]) + (also if len(path) == 1 else []))
    elif kind == "missing":
        message = "required, but not given"
    elif kind == "value_error":
        message = item["msg"].removeprefix("Value error, ")
        if not isinstance(item["input"], Mapping):
            message += f"; found {_shown(item['input'])}"
    else:
        expected = _expected(item, model, path)
    return _Mistake(path, branch, expected, message, item["input"])


def _expected(item: ErrorDetails, model: type[BaseModel], path: KeyPath) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "string_pattern_mismatch":  # a pattern is no answer: what it allows stands in the description
        parent = _model_at(model, path[:-1])
        described = (
            parent.model_fields[str(path[-1])].description if parent and path[-1] in parent.model_fields else None
        )
        return described or f"a match of {context['pattern']}"
    if kind == "model_type":
        return str(getattr(_model_at(model, path), "forms", TYPES[kind]))
    if kind in LIMITS:
        return LIMITS[kind].format(**context)
    return TYPES.get(kind) or item["msg"].removeprefix("Input should be ")


def _sentence(mistakes: list[_Mistake]) -> str:
    """What is said of one value, by several branches of a union or by one model, as one sentence."""
    said = [mistake.message for mistake in mistakes if mistake.message]
    expected = list(dict.fromkeys(mistake.expected for mistake in mistakes if mistake.expected))
    if expected:
        said.append(f"expected {' or '.join(expected)}; found {_shown(mistakes[0].found)}")
    return "; ".join(dict.fromkeys(said))


def _shown(value: Any) -> str:
    """A value as YAML has it, in one short line."""
    if isinstance(value, Mapping):
        return "a mapping"
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:59] + "…"


def _is_union_branch(key: str | int) -> bool:
    """Whether `key` is pydantic's name of a branch of a union rather than a key of the file."""
    return isinstance(key, str) and (
        key in {"str", "int", "float", "bool"} or "[" in key or key.startswith(("literal", "constrained", "function-"))
    )


def _fields_at(model: type[BaseModel], path: Iterable[str | int]) -> list[str]:
    """The keys that the model at `path` below `model` accepts."""
    found = _model_at(model, path)
    return list(found.model_fields) if found is not None else []


def _model_at(model: type[BaseModel], path: Iterable[str | int]) -> type[BaseModel] | None:
    """The model of what stands at `path` below `model`, if it has one."""
    current: type[BaseModel] | None = model
    for key in path:
        if current is None or not isinstance(key, str) or key not in current.model_fields:
            continue
        current = next(_models_in(current.model_fields[key].annotation), None)
    return current


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return iter([annotation])
    return iter([model for inner in get_args(annotation) for model in _models_in(inner)])
