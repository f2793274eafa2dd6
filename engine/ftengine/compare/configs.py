"""The config of each compared strategy: the file's, without what strategies decide. Needs no torch."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ftengine.config import Config
from ftengine.config_refs import OptimizerRef, Ref
from ftengine.document import Document, KeyPath, Origin
from ftengine.errors import ConfigError, FtengineError, Problem
from ftengine.host import Component
from ftengine.plan import Plan
from ftengine.plugin import StrategySpec
from ftengine.resolve import resolve

ALWAYS = ("strategy", "freeze", "adapter", "regularizers")
"""Sections that no file shares with all strategies: they are what a strategy consists of."""

PLACES = tuple(key for key in OptimizerRef.model_fields if key not in Ref.model_fields)
AVERAGES = ("ema", "swa")  # of which a run can have one
TRAIN = (*AVERAGES, "wise_ft")

LINEAR_PROBE = "probe"
"""The strategy by which what a backbone still knows is measured: its features stay, a head on them trains."""


def governed(specs: Sequence[StrategySpec]) -> list[KeyPath]:
    """What no file may decide for all of these strategies, since one of them sets it.

    Always freeze, adapter, regularizers and strategy; of mixing, of rates by place and of averages, what one of
    `specs` sets. With one kind of average the other goes too: a run can have but one.
    """
    paths: list[KeyPath] = [(section,) for section in ALWAYS]
    for spec in specs:
        if "mix" in spec.settings:
            paths.append(("mix",))
        optimizer, train = _keys(spec, "optimizer"), _keys(spec, "train")
        paths += [("optimizer", key) for key in PLACES if key in optimizer]
        averages = AVERAGES if any(key in train for key in AVERAGES) else ()
        paths += [("train", key) for key in TRAIN if key in train or key in averages]
    return list(dict.fromkeys(paths))


def own(spec: StrategySpec, data: Mapping[str, Any]) -> list[KeyPath]:
    """What every run needs, and this strategy decides for its own: a learning rate, a schedule.

    With a component of another name than the file's, all of the file's section goes: its options are another's.
    """
    paths: list[KeyPath] = []
    for section in ("optimizer", "schedule", "train"):
        keys = _keys(spec, section)
        if "name" in keys and keys["name"] != _name(section, data):
            paths.append((section,))
        else:
            paths += [(section, key) for key in keys if key not in ("name", "epochs")]  # as long as the others
    return paths


def _keys(spec: StrategySpec, section: str) -> dict[str, Any]:
    value = spec.settings.get(section, {})
    return {"name": value} if isinstance(value, str) else dict(value)


def _name(section: str, data: Mapping[str, Any]) -> str:
    """The component that a file names for `section`, or the default one."""
    value = data.get(section)
    given = value.get("name") if isinstance(value, dict) else value
    default: str = "" if section == "train" else getattr(Config(), section).name
    return given or default


def strip(data: dict[str, Any], paths: Iterable[KeyPath]) -> list[str]:
    """Take `paths` out of `data`; returns those that were there, as a config names them."""
    found = []
    for path in paths:
        within: Any = data
        for key in path[:-1]:
            within = within.get(key) if isinstance(within, dict) else None
        if isinstance(within, dict) and path[-1] in within:
            del within[path[-1]]
            found.append(".".join(str(key) for key in path))
    return found


def documents(base: Document, components: Sequence[Component]) -> tuple[dict[str, Document], list[str]]:
    """The config of each strategy, but for the seed; and notes on what of the file is not in it."""
    specs: dict[str, StrategySpec] = {}
    for component in components:
        assert isinstance(component.spec, StrategySpec)
        specs[component.name] = component.spec
    shared = copy.deepcopy(base.data)
    train = shared.get("train")
    if isinstance(train, dict) and train.get("batch_size") == "auto":
        message = "auto may find another number for each strategy, and they are to be compared: give one for all"
        raise ConfigError([base.problem(("train", "batch_size"), message)])
    removed = strip(shared, governed(list(specs.values())))
    notes = []
    if removed:
        notes.append(f"the strategies decide these, and the config's are not used: {', '.join(removed)}")
    made = {}
    for name, spec in specs.items():
        data = copy.deepcopy(shared)
        theirs = strip(data, own(spec, data))
        if theirs:
            notes.append(f"{name} sets its own {', '.join(theirs)} in place of the config's")
        document = Document(data, dict(base.origins), base.source)
        document.put(("strategy",), name, Origin("--strategies"))
        document.put(("train", "pictures"), 0, Origin("compare"))
        made[name] = document
    return made, notes


def with_epochs(document: Document, epochs: int) -> Document:
    """A copy with another length of run."""
    changed = copied(document)
    changed.put(("train", "epochs"), epochs, Origin("--budget"))
    return changed


def copied(document: Document) -> Document:
    """A copy that may be resolved, which fills in what a strategy sets."""
    return Document(copy.deepcopy(document.data), dict(document.origins), document.source)


def plans(documents: Mapping[str, Document]) -> Iterator[tuple[str, Plan | FtengineError]]:
    """Each strategy's plan, or all that is wrong with it."""
    for name, document in documents.items():
        try:
            yield name, resolve(copied(document))
        except FtengineError as error:
            yield name, error


def refuse(errors: Mapping[str, FtengineError], count: int) -> None:
    """Raise what is wrong with the strategies together, what is the same for all of them once."""
    if not errors:
        return
    texts = {str(error) for error in errors.values()}
    if len(errors) == count and len(texts) == 1:
        raise next(iter(errors.values()))
    lines = [f"{len(errors)} of {count} strategies cannot be run with this config; nothing was started"]
    for name, error in errors.items():
        lines.append(f"  {name}: " + str(error).replace("\n", "\n  "))
    raise StrategiesError("\n".join(lines))


class StrategiesError(FtengineError):
    """Strategies that cannot be compared as they are, each with the reason."""

    exit_code = 2


def write_config(file: Path, document: Document) -> None:
    """`document` as a config that ``ftengine run`` takes."""
    from ftengine.files import write_text  # numpy

    write_text(file, yaml.safe_dump(document.data, sort_keys=False, allow_unicode=True))


def plain(data: Any) -> Any:
    """`data` as it is after a way through JSON."""
    return json.loads(json.dumps(data, default=str))


# --- the --retain task -------------------------------------------------------------------------------------------


def retain_document(document: Document, base: Document) -> Document:
    """The config of a head on the frozen starting backbone, from the retain file's.

    The backbone is the compared one's if the file names none; the file's own way of fine-tuning is left out.
    """
    made = copied(document)
    strip(made.data, [(section,) for section in (*ALWAYS, "provenance")])
    strip(made.data, [("train", key) for key in ("swa", "wise_ft")])
    origin = Origin("--retain")
    if "backbone" not in made.data and "backbone" in base.data:
        made.put(("backbone",), copy.deepcopy(base.data["backbone"]), origin)
    made.put(("strategy",), LINEAR_PROBE, origin)
    made.put(("train", "pictures"), 0, origin)
    return made


def check_backbone(retain: Plan, compared: Plan) -> None:
    """Raises ConfigError unless the retain task is on the compared backbone with its weights, and there are such."""
    where = retain.document.source
    if compared.weights.kind == "none" and not any(task.head_weights for task in compared.tasks.values()):
        message = "none: a backbone that starts from random weights has nothing to lose; leave --retain out"
        raise ConfigError([Problem("backbone.weights", message, source=where)])
    for what, theirs, ours in (
        ("backbone", retain.backbone.data(), compared.backbone.data()),
        ("backbone.weights", retain.weights.text, compared.weights.text),
    ):
        if theirs != ours:
            message = f"is {theirs}, the compared one {ours}: leave it out, or make it the same"
            raise ConfigError([Problem(what, message, source=where)])
