"""Which distributions claim which plugin names. Entry points are read; no plugin is imported here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from typing import Literal

from ftengine.errors import name_list
from ftengine.plugin import ENTRY_POINT_GROUP

__all__ = ["Claim", "PluginRecord", "Status", "normalised", "read_claims", "settle"]

Status = Literal["ok", "disabled", "broken", "incompatible", "conflict"]

_PLUGIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class PluginRecord:
    """One installed plugin, and whether it can be used.

    `name` is its entry point, `module` what that names. `cause` says why it is not ``ok``, and is None where it
    is. `notes` are remarks that do not keep it from working.
    """

    name: str
    distribution: str
    version: str
    status: Status
    cause: str | None
    builtin: bool
    module: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """An entry point of a distribution: the wish to be the plugin `name`."""

    name: str
    module: str
    distribution: str
    version: str

    @property
    def builtin(self) -> bool:
        """Whether it comes with the engine itself."""
        return normalised(self.distribution) == "ftengine"

    def record(self, status: Status, cause: str | None = None, notes: Iterable[str] = ()) -> PluginRecord:
        """The record of this plugin with the given outcome."""
        return PluginRecord(
            name=self.name,
            distribution=self.distribution,
            version=self.version,
            status=status,
            cause=cause,
            builtin=self.builtin,
            module=self.module,
            notes=tuple(notes),
        )

    def problem(self) -> str | None:
        """What is wrong with the entry point as it is written, or None."""
        if not _PLUGIN_NAME.fullmatch(self.name):
            return (
                f"the entry point name {self.name!r} must consist of letters, digits, '.', '_' and '-', since configs "
                "name components as <entry point>/<component>"
            )
        if not _MODULE.fullmatch(self.module):
            return f"the entry point must name a module, as in 'acme_vision.plugin', not {self.module!r}"
        return None

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.module})"


def normalised(distribution: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def read_claims() -> tuple[list[Claim], list[PluginRecord]]:
    """All entry points of the group ``ftengine``, and a record for each distribution whose list cannot be read.

    A distribution that is on ``sys.path`` more than once (an editable install beside a wheel) counts once: the
    first one, which is the one that imports would find.
    """
    try:
        found: list[EntryPoint] = list(entry_points(group=ENTRY_POINT_GROUP))
        unreadable: list[PluginRecord] = []
    except Exception:
        # One distribution with a damaged list makes the call above fail for all of them.
        found, unreadable = _read_one_by_one()
    # One distribution names many plugins, and its metadata is parsed anew whenever it is asked for.
    owners = {dist: (_name(dist), (dist.version if dist else None) or "?") for dist in {entry.dist for entry in found}}
    claims = {Claim(entry.name, entry.value.strip(), *owners[entry.dist]) for entry in found}
    # By name, and the built-in ones first, so that the outcome does not depend on the order of sys.path.
    return sorted(claims, key=lambda claim: (not claim.builtin, claim.name, claim.distribution)), unreadable


def _read_one_by_one() -> tuple[list[EntryPoint], list[PluginRecord]]:
    found: list[EntryPoint] = []
    unreadable: list[PluginRecord] = []
    seen: set[str] = set()
    for distribution in distributions():
        name = _name(distribution)
        if normalised(name) in seen:
            continue
        seen.add(normalised(name))
        try:
            found.extend(distribution.entry_points.select(group=ENTRY_POINT_GROUP))
        except Exception as error:
            text = distribution.read_text("entry_points.txt") or ""
            if f"[{ENTRY_POINT_GROUP}]" in text:
                cause = f"its entry_points.txt cannot be read: {type(error).__name__}: {error}"
                claim = Claim(name, "?", name, distribution.version or "?")
                unreadable.append(claim.record("broken", cause))
    return found, unreadable


def _name(distribution: Distribution | None) -> str:
    name: str | None = distribution.metadata["Name"] if distribution else None
    return name or "?"


def settle(claims: Iterable[Claim]) -> Iterator[tuple[Claim, str | None, tuple[str, ...]]]:
    """For each claim: why its name is refused (None: it is not), and notes.

    A name claimed twice is nobody's, since which one won would depend on what else is installed. A built-in plugin
    keeps its name, so that installing a package never changes what an existing config means.
    """
    by_name: dict[str, list[Claim]] = {}
    for claim in claims:
        by_name.setdefault(claim.name, []).append(claim)
    for name, rivals in by_name.items():
        builtin = [claim for claim in rivals if claim.builtin]
        for claim in rivals:
            others = [rival for rival in rivals if rival is not claim]
            if not others:
                yield claim, None, ()
            elif len(builtin) == 1 and claim.builtin:
                yield claim, None, (f"{name_list(map(str, others))} claims this name too, and was refused",)
            elif len(builtin) == 1:
                yield claim, f"the built-in plugin {name!r} has this name; the distribution must choose another", ()
            else:
                cause = f"{name_list(map(str, others))} claims the name {name!r} too; uninstall one of them"
                yield claim, cause, ()
