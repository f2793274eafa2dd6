"""What a comparison is: which strategies run with which seeds, and where. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from ftengine.errors import CheckpointError, name_list
from ftengine.host import Component, Host, LookupProblem

FILE = "compare.json"
RETAIN = "retain"


@dataclass(frozen=True)
class Run:
    """One run of a comparison, in a folder of its own; what it prints goes to `log`."""

    strategy: str
    seed: int
    directory: Path
    config: Path

    @property
    def log(self) -> Path:
        return self.directory.with_name(f"{self.directory.name}.log")

    @property
    def summary(self) -> dict[str, Any] | None:
        """What the finished run says of itself; None if it has not finished."""
        file = self.directory / "summary.json"
        return json.loads(file.read_text()) if file.is_file() else None


@dataclass
class Comparison:
    """All settings of a comparison, as ``compare.json`` keeps them.

    `base` is the config as given, with --set and --task, `folder` the working directory that its paths start from.
    `strategies` maps each name to its folder, `epochs` to how many its runs have. `budget` is in seconds; `retain`
    is the config of the --retain task. `mode` says whether a larger `metric` is better (``max``) or a smaller one.
    """

    base: dict[str, Any]
    source: str
    folder: str
    strategies: dict[str, str]
    seeds: list[int]
    epochs: dict[str, int] = field(default_factory=dict)
    budget: float | None = None
    retain: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    metric: str = ""
    mode: str = "max"

    def runs(self, directory: Path) -> list[Run]:
        """Every run, seed by seed over all strategies, so that an early stop leaves seeds that can be compared."""
        return [
            Run(name, seed, directory / folder / f"seed-{seed}", directory / folder / "config.yaml")
            for seed in self.seeds
            for name, folder in self.strategies.items()
        ]

    def retain_run(self, directory: Path) -> Run:
        """The run that trains a head for the --retain task on the starting backbone."""
        folder = directory / RETAIN
        return Run("probe", self.seeds[0], folder / "run", folder / "config.yaml")

    def save(self, directory: Path) -> None:
        from ftengine.files import write_text  # numpy

        write_text(directory / FILE, json.dumps(asdict(self), indent=1, default=str) + "\n")

    @classmethod
    def load(cls, directory: Path) -> Comparison:
        """The comparison in `directory`; CheckpointError for a folder that holds none."""
        file = directory / FILE
        if not file.is_file():
            raise CheckpointError(f"{directory} is not a comparison's directory: it has no {FILE}")
        try:
            return cls(**json.loads(file.read_text()))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from None


def pick(text: str, host: Host) -> list[Component]:
    """The strategies that ``a,b,c`` or ``all`` names, in that order. UsageError for what cannot be meant."""
    known = host.names("strategy")
    names = [name.strip() for name in text.split(",")]
    if names == ["all"]:
        return host.select("strategy")
    if "" in names:
        raise click.UsageError(f"--strategies {text!r}: expected names with commas between them: {name_list(known)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise click.UsageError(f"--strategies names {name_list(twice)} twice; more runs of each come with --seeds")
    found, problems = [], []
    for name in names:
        try:
            found.append(host.find("strategy", name))
        except LookupProblem as error:
            problems.append(str(error))
    if problems:
        raise click.UsageError("--strategies: " + "; ".join(problems))
    return found


def folders(names: Iterable[str]) -> dict[str, str]:
    """A folder's name for each strategy: no slash, no two the same, none that is the comparison's own."""
    taken = {RETAIN: ""}
    for name in names:
        folder = base = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
        number = 1
        while folder in taken:
            number += 1
            folder = f"{base}-{number}"
        taken[folder] = name
    return {name: folder for folder, name in taken.items() if name}
