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
MERGE_TAG = "tag:yaml.org,2002:merge"
SHORT_FOR: dict[Key, str] = {"data": "format", "weights": "source"}
STRING_TAG = "tag:yaml.org,2002:str"


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
    """`data` as read from `source`; `origins` has an entry for each key and list item in it."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    source: str | None = None

    def origin(self, path: KeyPath) -> Origin | None:
        """Where `path`, or else the nearest thing around it, was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return None

    def at(self, path: KeyPath) -> Any:
        """What is written at `path`; None where nothing is."""
        here: Any = self.data
        for key in path:
            known = (isinstance(here, dict) and key in here) or (
                isinstance(here, list) and isinstance(key, int) and key < len(here)
            )
            here = here[key] if known else None
        return here

    def problem(self, path: KeyPath, message: str) -> Problem:
        """A mistake at `path`, with its place in the file."""
        path = self._as_written(path)
        origin = self.origin(path)
        if origin is None:
            return Problem(dotted(path), message, source=self.source)
        return Problem(dotted(path), message, line=origin.line, source=origin.source)

    def _as_written(self, path: KeyPath) -> KeyPath:
        """`path` without the index of an item that is written alone, where a list of such could be."""
        written: list[Key] = []
        here: Any = self.data
        for key in path:
            if isinstance(key, int) and not isinstance(here, list):
                continue
            written.append(key)
            known = (isinstance(here, dict) and key in here) or (isinstance(here, list) and key < len(here))  # type: ignore[operator]
            here = here[key] if known else None
        return tuple(written)

    def name_path(self, path: KeyPath, key: str) -> KeyPath:
        """The path of a component's name: below `path` where it is written as a mapping."""
        return (*path, key) if (*path, key) in self.origins else path

    def put(self, path: KeyPath, value: Any, origin: Origin) -> None:
        """Write `value` at `path`, replacing what was there; a component's bare name becomes a mapping first."""
        here: Any = self.data
        for depth, key in enumerate(path[:-1]):
            if isinstance(here, dict):
                path = _named(path, depth)
                key = path[depth]
            following = path[depth + 1]
            if isinstance(here, list):
                key = self._index(here, key, path)
            elif key not in here or here[key] is None:
                here[key] = {}
                self.origins.setdefault(path[: depth + 1], origin)
            if isinstance(here[key], str) and isinstance(following, str):
                short = SHORT_FOR.get(key, "name")
                here[key] = {short: here[key]}
                self.origins[(*path[: depth + 1], short)] = self.origins.get(path[: depth + 1], origin)
            if not isinstance(here[key], dict | list):
                message = f"is {here[key]!r}, which has no entry {following!r}"
                raise ConfigError([Problem(dotted(path[: depth + 1]), message, source=str(origin))])
            here[key] = here[key].copy()  # YAML aliases share one object: only this use of it changes
            here = here[key]
        path = path if isinstance(here, list) else _named(path, len(path) - 1)
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


def _named(path: KeyPath, depth: int) -> KeyPath:
    """`path` with a name at `depth`: a mapping may have a key that looks like a number (a class called 3)."""
    return (*path[:depth], str(path[depth]), *path[depth + 1 :])


def dotted(path: KeyPath) -> str:
    """``("metrics", 0, "name")`` as ``metrics[0].name``."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def below(path: KeyPath, place: str) -> KeyPath:
    """`path` and then `place`, which is like ``[0].p``."""
    parts = place.replace("[", ".").replace("]", "").strip(".").split(".")
    return (*path, *(int(part) if part.isdigit() else part for part in parts if part))


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
        document = Document(source=str(file))
        if node is not None:
            index = _Index(str(file), document.origins)
            index.add(node, ())
            if index.problems:
                raise ConfigError(index.problems)
            document.data = loader.construct_document(node)
    except RecursionError:
        raise ConfigError([Problem("", "is nested too deeply, or contains itself", source=str(file))]) from None
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


class _Index:
    """Notes the line of every key and item, and refuses keys that are given twice or are not names.

    It runs before anything is constructed, and visits what an alias (``*name``) stands for once for each use: a file
    of a few lines that would expand to millions of values ends at MAX_NODES.
    """

    def __init__(self, source: str, origins: dict[KeyPath, Origin]) -> None:
        self.source = source
        self.origins = origins
        self.problems: list[Problem] = []
        self.visited = 0

    def add(self, node: yaml.Node, path: KeyPath) -> None:
        """Index `node`, which stands at `path`, and all that is in it."""
        self.visited += 1
        if self.visited > MAX_NODES:
            raise yaml.YAMLError(f"has more than {MAX_NODES} values")
        if isinstance(node, yaml.MappingNode):
            self._add_mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.origins[(*path, index)] = Origin(self.source, item.start_mark.line + 1)
                self.add(item, (*path, index))

    def _add_mapping(self, node: yaml.MappingNode, path: KeyPath) -> None:
        seen: dict[str, int] = {}
        # What is merged in (``<<: *name``) comes first: the mapping's own keys replace it.
        for key_node, value_node in sorted(node.value, key=lambda pair: pair[0].tag != MERGE_TAG):
            line = key_node.start_mark.line + 1
            key = key_node.value
            if key_node.tag == MERGE_TAG:
                merged = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for mapping in reversed(merged):
                    self.add(mapping, path)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(dotted(path), "a key must be a name", line=line, source=self.source))
                continue
            if key_node.tag != STRING_TAG:
                text = f"a key must be a name, and {key or 'null'} is none in YAML; write it in quotes: '{key}'"
                self.problems.append(Problem(dotted(path), text, line=line, source=self.source))
                continue
            if key in seen:
                text = f"given twice, first on line {seen[key]}"
                self.problems.append(Problem(dotted((*path, key)), text, line=line, source=self.source))
            seen[key] = line
            self.origins[(*path, key)] = Origin(self.source, line)
            self.add(value_node, (*path, key))


def missing_file(file: Path) -> str:
    """The sentence for a file that is not there, with the nearest that is."""
    absolute = file.absolute()
    if not absolute.parent.is_dir():
        return f"no such file; there is no folder {absolute.parent}"
    near = nearest(file.name, [entry.name for entry in absolute.parent.iterdir()])
    return f"no such file in {absolute.parent}" + (f"; did you mean {near!r}?" if near else "")


def _value(text: str) -> Any:
    """`text` read as YAML, within the same limits as a file."""
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _Index("--set", {}).add(node, ())
        return loader.construct_document(node)
    finally:
        loader.dispose()


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
            value = _value(text)
        except RecursionError:
            raise ConfigError([Problem(dotted(path), "the value contains itself", source="--set")]) from None
        except yaml.YAMLError as error:
            message = f"the value {text!r} is not valid YAML: {getattr(error, 'problem', error)}"
            raise ConfigError([Problem(dotted(path), message, source="--set")]) from None
        document.put(path, value, Origin(f"--set {assignment}"))
