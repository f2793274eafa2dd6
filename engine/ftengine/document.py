"""A config file as data that remembers where each value came from: safe YAML, line numbers, overrides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ftengine.errors import ConfigError, Problem, nearest

Key = str | int
KeyPath = tuple[Key, ...]

MAX_NODES = 100_000


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also reads ``1e-4`` as a number, as YAML 1.2 does."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


@dataclass(frozen=True)
class Origin:
    """Where a value was written: a file with a line (from 1), or a command-line option."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass
class Document:
    """`data` as read; `origins` has an entry for each key and list item in it."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)

    def origin(self, path: KeyPath) -> Origin | None:
        """Where `path`, or else the nearest thing around it, was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return None

    def problem(self, path: KeyPath, message: str) -> Problem:
        """A mistake at `path`, with its place in the file."""
        origin = self.origin(path)
        if origin is None:
            files = [known for known in self.origins.values() if known.line is not None]
            return Problem(dotted(path), message, source=files[0].source if files else None)
        return Problem(dotted(path), message, line=origin.line, source=origin.source)

    def put(self, path: KeyPath, value: Any, origin: Origin) -> None:
        """Write `value` at `path`, replacing what was there; a component's bare name becomes a mapping first."""
        here: Any = self.data
        for depth, key in enumerate(path[:-1]):
            following = path[depth + 1]
            if isinstance(here, list):
                key = self._index(here, key, path)
            elif key not in here or here[key] is None:
                here[key] = {}
                self.origins.setdefault(path[: depth + 1], origin)
            if isinstance(here[key], str) and isinstance(following, str):
                here[key] = {"name": here[key]}
                self.origins[(*path[: depth + 1], "name")] = self.origins.get(path[: depth + 1], origin)
            here = here[key]
            if not isinstance(here, dict | list):
                raise ConfigError(
                    [
                        Problem(
                            dotted(path[: depth + 1]),
                            f"is {here!r}, which has no entry {following!r}",
                            source=str(origin),
                        )
                    ]
                )
        last = self._index(here, path[-1], path) if isinstance(here, list) else path[-1]
        here[last] = value
        self.origins = {known: o for known, o in self.origins.items() if known[: len(path)] != path}
        for below in walk(value, path):
            self.origins[below] = origin

    @staticmethod
    def _index(items: list[Any], key: Key, path: KeyPath) -> int:
        if not isinstance(key, int) or not 0 <= key < len(items):
            raise ConfigError(
                [
                    Problem(
                        dotted(path),
                        f"{key!r} is no item of a list of {len(items)}; items count from 0",
                        source="--set",
                    )
                ]
            )
        return key


def dotted(path: KeyPath) -> str:
    """``("metrics", 0, "name")`` as ``metrics[0].name``."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def walk(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    """`path` and every path below it in `value`."""
    yield path
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from walk(inner, (*path, key))


def read(file: Path) -> Document:
    """Read a YAML file; raises ConfigError for a file that is missing or is not a mapping of names."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([Problem("", missing_file(file), source=str(file))]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem("", f"cannot be read: {error}", source=str(file))]) from None
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        document = Document()
        problems: list[Problem] = []
        if node is not None:
            _index_lines(node, (), str(file), document.origins, problems)
            if problems:
                raise ConfigError(problems)
            document.data = loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        message = f"is not valid YAML: {getattr(error, 'problem', None) or error}"
        line = None if mark is None else mark.line + 1
        raise ConfigError([Problem("", message, line=line, source=str(file))]) from None
    finally:
        loader.dispose()
    if not isinstance(document.data, dict):
        found = type(document.data).__name__
        raise ConfigError([Problem("", f"expected a mapping of names to values, found a {found}", source=str(file))])
    return document


def _index_lines(
    node: yaml.Node, path: KeyPath, source: str, origins: dict[KeyPath, Origin], problems: list[Problem]
) -> None:
    """Note the line of every key and item, and refuse keys that are given twice or are not names."""
    if len(origins) > MAX_NODES:
        raise yaml.YAMLError(f"more than {MAX_NODES} values")
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(Problem(dotted(path), "a key must be a name", line=line, source=source))
                continue
            if key in seen:
                text = f"given twice, first on line {seen[key]}"
                problems.append(Problem(dotted((*path, key)), text, line=line, source=source))
            seen[key] = line
            origins[(*path, key)] = Origin(source, line)
            _index_lines(value_node, (*path, key), source, origins, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            origins[(*path, index)] = Origin(source, item.start_mark.line + 1)
            _index_lines(item, (*path, index), source, origins, problems)


def missing_file(file: Path) -> str:
    """The sentence for a file that is not there, with the nearest that is."""
    absolute = file.absolute()
    if not absolute.parent.is_dir():
        return f"no such file; there is no folder {absolute.parent}"
    near = nearest(file.name, [entry.name for entry in absolute.parent.iterdir()])
    return f"no such file in {absolute.parent}" + (f"; did you mean {near!r}?" if near else "")


def override(document: Document, assignments: Sequence[str]) -> None:
    """Apply ``a.b=value`` assignments; values are read as YAML, a number between dots or brackets is a list index."""
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not re.fullmatch(r"[^.\[\]=]+(\.[^.\[\]=]+|\[\d+\])*", name.strip()):
            message = f"expected key.path=value, got {assignment!r}"
            raise ConfigError([Problem("", message, source="--set")])
        parts = re.findall(r"[^.\[\]]+", name.strip())
        path: KeyPath = tuple(int(part) if part.isdigit() else part for part in parts)
        try:
            value = yaml.load(text, Loader=Loader)  # a SafeLoader
        except yaml.YAMLError as error:
            message = f"the value {text!r} is not valid YAML: {getattr(error, 'problem', error)}"
            raise ConfigError([Problem(dotted(path), message, source="--set")]) from None
        document.put(path, value, Origin(f"--set {assignment}"))
