"""``ftengine compare``: which fine-tuning strategy to use on one's own data."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from ftengine.cli_common import config_option, set_option, task_option
from ftengine.cli_run import check_empty
from ftengine.compare import configs
from ftengine.compare import plan as compare_plan
from ftengine.compare.budget import seconds_of
from ftengine.compare.plan import Comparison
from ftengine.config import parse
from ftengine.document import Document, override, read
from ftengine.errors import ConfigError, FtengineError, name_list
from ftengine.host import Host
from ftengine.resolve import apply_task, resolve

if TYPE_CHECKING:
    from rich.console import Console

    from ftengine.signals import Signals

SEEDS = 3


@dataclass(frozen=True)
class Given:
    """What the command line says of a comparison; None for what it leaves out."""

    config: Path | None
    strategies: str | None
    seeds: int | None
    budget: str | None
    retain: Path | None
    task: str | None
    assignments: tuple[str, ...]


@click.command()
@config_option
@click.option("--strategies", metavar="NAME,…|all", help="The strategies to compare, with commas between them.")
@click.option(
    "--seeds", type=click.IntRange(min=1), metavar="N", help=f"Runs of each, from train.seed on; default: {SEEDS}."
)
@click.option("--budget", metavar="TIME", help="Time for all runs together (20min); default: the config's epochs each.")
@click.option(
    "--retain",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Config of a task that the starting backbone could do: what is lost of it.",
)
@task_option
@set_option
@click.option(
    "--output", type=click.Path(path_type=Path), help="Directory, new or empty; default: runs/compare-<name>-<time>."
)
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="DIR", help="Continue a comparison that was stopped."
)
def compare(resume: Path | None, output: Path | None, **options: Any) -> None:
    """Compare fine-tuning strategies on the config's data, and recommend one.

    Each strategy is run with each seed, in place of what the config says of freezing, adapters and rates by place. The
    directory holds every run, and comparison.md, .json and .png. Ctrl-C saves and stops. Failed runs are tried again
    with --resume.
    """
    given = Given(**options)
    if resume is not None:
        if output is not None:
            raise click.UsageError("--output and --resume exclude each other: a comparison stays in its directory")
        directory = resume.absolute()
        comparison = Comparison.load(directory)
        _agree(comparison, directory, given)
        compared, console = _torch()
        with _stopping(directory, console) as signals:
            compared.execute(comparison, directory, console, signals)
        return
    if given.config is None:
        raise click.UsageError("--config FILE is needed (or --resume DIR)")
    seconds = None if given.budget is None else seconds_of(given.budget)
    base = _base(given.config, given)
    parsed, problems = parse(base)
    if parsed is None:
        raise ConfigError(problems)
    host = Host.discover(disable=parsed.plugins.disable)
    if given.strategies is None:
        known = name_list(host.names("strategy"), limit=40)
        raise click.UsageError(f"--strategies is needed: names with commas between them, or all: {known}")
    chosen = compare_plan.pick(given.strategies, host)
    stem = given.config.stem
    directory = (output or Path("runs") / f"compare-{stem}-{datetime.now():%Y%m%d-%H%M%S}").absolute()
    check_empty(directory, "compare")
    documents, notes = configs.documents(base, chosen)
    plans, wrong = {}, {}
    for name, plan in configs.plans(documents):
        if isinstance(plan, FtengineError):
            wrong[name] = plan
        else:
            plans[name] = plan
    configs.refuse(wrong, len(documents))
    first = parsed.train.seed
    monitor = next(iter(plans.values())).monitor
    comparison = Comparison(
        base=base.data,
        source=str(given.config.absolute()),
        folder=str(Path.cwd()),
        strategies=compare_plan.folders(documents),
        seeds=[first + index for index in range(given.seeds or SEEDS)],
        epochs={name: plan.config.train.epochs for name, plan in plans.items()},
        notes=notes,
        metric=monitor.name,
        mode=monitor.mode,
    )
    retained = None
    if given.retain is not None:
        file = read(given.retain)
        comparison.retain = file.data
        document = configs.retain_document(file, base)
        retained = (document, resolve(configs.copied(document)))
    compared, console = _torch()
    prepared = compared.Prepared(comparison, documents, plans)
    prepared.check()
    if retained is not None:
        prepared.add_retain(*retained)
    for note in notes:
        console.print(f"note: {note}", soft_wrap=True)
    with _stopping(directory, console) as signals:
        if seconds is not None:
            prepared.fit(seconds, console, signals)
        prepared.write(directory)
        compared.execute(comparison, directory, console, signals)


def _base(config: Path, given: Given) -> Document:
    document = read(config)
    override(document, given.assignments)
    apply_task(document, given.task)
    return document


def _agree(comparison: Comparison, directory: Path, given: Given) -> None:
    """Raises UsageError for an option that says something else than the comparison which --resume continues."""
    own: dict[str, tuple[Any, Any]] = {}
    if given.config is None and (given.assignments or given.task):
        raise click.UsageError("--resume continues the comparison with its own settings: leave --set and --task out")
    if given.config is not None:
        same = configs.plain(_base(given.config, given).data) == configs.plain(comparison.base)
        own["--config"] = (given.config, given.config if same else f"another, from {comparison.source}")
    if given.strategies is not None:
        names = sorted(name.strip() for name in given.strategies.split(","))
        own["--strategies"] = (",".join(names), ",".join(sorted(comparison.strategies)))
    if given.seeds is not None:
        own["--seeds"] = (given.seeds, len(comparison.seeds))
    if given.budget is not None:
        own["--budget"] = (seconds_of(given.budget), comparison.budget)
    if given.retain is not None:
        kept = comparison.retain
        same = kept is not None and configs.plain(read(given.retain).data) == configs.plain(kept)
        own["--retain"] = (given.retain, given.retain if same else "another" if kept else "none")
    for option, (said, kept) in own.items():
        if said != kept:
            raise click.UsageError(
                f"{option} {said} differs from the comparison in {directory}, which --resume would continue "
                f"unchanged: it has {kept}"
            )


def _torch() -> tuple[ModuleType, Console]:
    from ftengine.track import make_console  # rich

    console = make_console()
    with console.status("loading torch"):
        from ftengine.compare import execution as compared
    return compared, console


@contextmanager
def _stopping(directory: Path, console: Console) -> Iterator[Signals]:
    """While signals are noted: one that stops a run stops the comparison, and how to continue is said."""
    from ftengine.children import StoppedBySignal
    from ftengine.signals import Interrupted, Signals

    try:
        with Signals() as signals:
            yield signals
    except (StoppedBySignal, Interrupted) as stop:
        if (directory / compare_plan.FILE).is_file():
            console.print(f"continue with: ftengine compare --resume {shlex.quote(str(directory))}", soft_wrap=True)
        else:
            console.print("stopped before the first run; nothing was written", soft_wrap=True)
        raise SystemExit(stop.code) from None
