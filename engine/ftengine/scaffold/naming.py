"""What a new plugin's distribution may be called, and the nearest name that may be used."""

from __future__ import annotations

import importlib.util
import itertools
import keyword
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ftengine.host_discovery import normalised, read_claims

_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_LONGEST = 80
"""Its folders and files get longer names, which a file system bounds."""


def module_of(name: str) -> str:
    """The module, and the entry point, of the distribution `name`: ``acme-vision`` is ``acme_vision``."""
    return normalised(name).replace("-", "_")


def problem(name: str, parent: Path) -> str | None:
    """Why no plugin can be called `name` with its folder in `parent`, in a clause; None if one can."""
    if not _NAME.fullmatch(name):
        return "is no identifier: letters, digits, '-', '_' and '.', beginning with a letter"
    if len(name) > _LONGEST:
        return f"is longer than {_LONGEST} letters"
    module = module_of(name)
    if keyword.iskeyword(module) or keyword.iskeyword(name):
        return f"gives a module {module!r}, which is a Python keyword"
    for claim in read_claims()[0]:
        if module_of(claim.name) == module:
            origin = "a built-in" if claim.builtin else "an installed"
            return f"is the name of {origin} plugin ({claim.distribution} {claim.version})"
    if module in sys.stdlib_module_names:
        return f"gives a module {module!r}, which is the standard library's"
    try:
        return f"is the name of an installed distribution ({name} {distribution(name).version})"
    except PackageNotFoundError:
        pass
    place = _importable(module)
    if place is not None:
        return f"gives a module {module!r}, which is already installed ({place})"
    if os.path.lexists(parent / name):
        return f"is there already: {parent / name}"
    return None


def nearest_usable(name: str, parent: Path) -> str:
    """The name most like `name` that may be used."""
    return next(choice for choice in _choices(name) if problem(choice, parent) is None)


def _choices(name: str) -> Iterator[str]:
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    base = re.sub(r"[^a-z0-9]+", "-", ascii_only.lower()).strip("-") or "my-plugin"
    base = base[:_LONGEST].rstrip("-")
    if base[0].isdigit():
        base = f"plugin-{base}"
    yield from (base, f"{base}-plugin")
    yield from (f"{base}-{number}" for number in itertools.count(2))


def _importable(module: str) -> str | None:
    """Where a module of that name is imported from, if there is one."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        return None
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    if spec.origin is None and all(place.parent == Path.cwd() for place in places):
        return None  # a folder that happens to lie in the current one
    return spec.origin or ", ".join(map(str, places))
