"""``ftengine run``, ``evaluate`` and ``predict``. torch is imported after the config has been found good."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftengine.claim import claim
from ftengine.cli_common import config_option, set_option, task_option
from ftengine.document import Document, override
from ftengine.errors import DataError, FtengineError, name_list
from ftengine.launch import launched
from ftengine.plan import Plan
from ftengine.resolve import load, resolve
from ftengine.run_config import agrees, only, resumed_plan, run_document

if TYPE_CHECKING:
    from ftengine.inference import Opened

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}
WINDOWS = ("image.window", "image.window_overlap")


@click.command()
@config_option
@task_option
@set_option
@click.option(
    "--output", type=click.Path(path_type=Path), help="Run directory, new or empty; default: runs/<name>-<time>."
)
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="DIR", help="Continue a run from its last checkpoint."
)
@click.option("--force", is_flag=True, help="With --resume: go on although the config or the data have changed.")
@click.option(
    "--continue", "goes_on", is_flag=True, help="With --config and --output: go on with the run there, if there is one."
)
@click.option(
    "--stop-after",
    type=click.IntRange(min=1),
    metavar="STEP",
    help="Stop after this step as by SIGTERM: saved, to be resumed.",
)
def run(
    config: Path | None,
    task: str | None,
    assignments: tuple[str, ...],
    output: Path | None,
    resume: Path | None,
    force: bool,
    goes_on: bool,
    stop_after: int | None,
) -> None:
    """Fine-tune a model as a config says.

    The run directory holds resolved.yaml, metrics.jsonl, summary.json and the checkpoints. Ctrl-C saves and stops.
    """
    if goes_on and (config is None or output is None or resume is not None):
        raise click.UsageError("--continue goes with --config FILE and --output DIR, and without --resume")
    if resume is not None:
        if output is not None:
            raise click.UsageError("--output and --resume exclude each other: a resumed run stays in its directory")
        directory = resume.absolute()
        plan = resumed_plan(directory, config, task, assignments, force=force)
    elif config is None:
        raise click.UsageError("--config FILE is needed (or --resume DIR)")
    elif force:
        raise click.UsageError("--force goes with --resume: a new run has nothing to differ from")
    else:
        plan = load(config, assignments, task)
        directory = (output or default_directory(config, plan)).absolute()

    def choose() -> Choice:
        if goes_on:
            begun = is_begun(directory, plan)
            return directory, begun, run_document(directory) if begun else None
        if resume is None:
            check_empty(directory, "run")
        return directory, resume is not None, None

    outcome = _execute(plan, choose, force=force, stop_after=stop_after)
    if outcome in EXIT_CODES:
        raise SystemExit(EXIT_CODES[outcome])


Choice = tuple[Path, bool, Document | None]
"""A run's directory, whether a run goes on there, and its config if that is to take the place of the plan's."""


def _execute(plan: Plan, choose: Callable[[], Choice], **options: Any) -> str:
    from ftengine.signals import Interrupted, Signals
    from ftengine.track import make_console  # rich

    launch = launched()
    console = make_console()
    console.quiet = not launch.main
    config = plan.config.train
    if launch.size == 1:
        directory, resume, own = choose()  # before torch is imported: a mistake shows at once
    with Signals(shared=launch.size > 1) as signals:
        try:
            with console.status("loading torch"):
                from ftengine.dist import World
                from ftengine.precision import pick_device
                from ftengine.run import execute
            with World.join(launch, pick_device(config.device, launch), config.process_timeout) as world:
                if launch.size > 1:
                    directory, resume, own = world.from_main(choose)
                if own is not None:
                    plan = resolve(own, trained=True)
                return execute(plan, directory, console, signals, world=world, resume=resume, **options)
        except Interrupted as signal:
            console.print(f"stopped by {signal} before it began; nothing was written")
            again = f"ftengine run --resume {shlex.quote(str(directory))}" if resume else "the same command"
            console.print(f"continue with: {again}", soft_wrap=True)
            return str(signal)


def default_directory(config: Path, plan: Plan) -> Path:
    """``runs/<tasks>-<config file's name>-<time>``."""
    name = "joint" if plan.joint else next(iter(plan.tasks))
    stem = config.stem if config.stem.startswith(name) else f"{name}-{config.stem}"
    return Path("runs") / f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"


def is_begun(directory: Path, plan: Plan) -> bool:
    """Whether there is a run of this config in `directory` to go on with; raises ConfigError for one of another.

    One that ended before its first checkpoint is begun anew: what it has written is overwritten.
    """
    resolved, writing = (directory / name for name in ("resolved.yaml", ".resolved.yaml"))
    if not resolved.is_file():
        if not writing.is_file():  # else a run was killed here before it was one
            check_empty(directory, "run")
        return False
    agrees(run_document(directory), plan, directory)
    if any(path for pattern in ("step-*", ".replaced-*") for path in (directory / "checkpoints").glob(pattern)):
        return True
    with claim(directory):
        (directory / "metrics.jsonl").unlink(missing_ok=True)
        resolved.replace(writing)  # from here on there is no run any more, and still a sign that there was one
    return False


def check_empty(directory: Path, command: str | None = None) -> None:
    """Raises FtengineError unless `directory` is new or an empty folder; `command` is what could continue in it."""
    if directory.is_dir() and any(directory.iterdir()):
        go_on = f", or continue what is in it with `ftengine {command} --resume {directory}`" if command else ""
        raise FtengineError(f"--output {directory}: exists and is not an empty folder; give another{go_on}")
    if directory.exists() and not directory.is_dir():
        raise FtengineError(f"--output {directory}: is a file; give a folder, new or empty")


@click.command()
@click.argument("directory", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="val", show_default=True)
@set_option
def evaluate(directory: Path, split: str, assignments: tuple[str, ...]) -> None:
    """Measure a run's best checkpoint on one of its splits.

    Prints the metrics, and writes them with all details to RUN/evaluation-SPLIT.json. With --set, the data may be
    others (data.root, data.test=PATH, …) and the device another.
    """
    document = run_document(directory)
    only(assignments, ("data", "tasks", "train", "metrics", *WINDOWS), "the model of a run stays as it is")
    override(document, assignments)
    opened = _open(directory, resolve(document, trained=True))
    from ftengine.finite import without_nan
    from ftengine.inference import evaluate_run
    from ftengine.run import loader_settings
    from ftengine.track import make_console, show_results

    evaluation = evaluate_run(opened, split, loader_settings(opened.plan.config.train, opened.precision.device))
    file = directory / f"evaluation-{split}.json"
    metrics = without_nan(evaluation.values)
    content = {"checkpoint": opened.checkpoint.name, "metrics": metrics, "details": evaluation.details}
    file.write_text(json.dumps(content, indent=1) + "\n")
    console = make_console()
    show_results(console, {split: evaluation.values}, opened.checkpoint.name)
    if left_out := evaluation.details.get("left out"):
        console.print(f"left out, since they cannot be read: {name_list(left_out)}", soft_wrap=True)
    console.print(f"written to {file}", soft_wrap=True)


@click.command()
@click.argument("directory", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="A .csv or .json file, or a folder for all there is to write; default: CSV, printed.",
)
@click.option(
    "--pictures",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Draw the predictions, a PNG an image.",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A COCO file that gives the images their ids in result files.",
)
@click.option("--skip-unreadable", is_flag=True, help="Leave out images that cannot be read, and list them at the end.")
@set_option
def predict(
    directory: Path,
    paths: tuple[str, ...],
    output: Path | None,
    pictures: Path | None,
    annotations: Path | None,
    skip_unreadable: bool,
    assignments: tuple[str, ...],
) -> None:
    """Apply a run's best checkpoint to images: files, folders, or glob patterns.

    Each row holds the image's path and what the run says of it in short. A .json file of a detection run is in COCO's
    result format; a folder also gets an index PNG of each image from a segmentation run, in the image's own size.
    """
    from ftengine.predict_files import PredictionFiles, as_csv, form_of

    try:
        form_of(output)
    except DataError as error:
        raise click.UsageError(str(error)) from None
    document = run_document(directory)
    only(assignments, ("train", *WINDOWS), "the model of a run stays as it is")
    override(document, assignments)
    plan = resolve(document, trained=True)
    if plan.frames is not None:
        data = name_list({part.component.name for part in plan.streams.values()})
        raise click.UsageError(
            f"{directory} has learnt from clips ({data}), and image files are none; `ftengine evaluate` reads clips as "
            "the run's data do"
        )
    opened = _open(directory, plan)
    from ftengine.inference import expand
    from ftengine.inference import predict as predictions
    from ftengine.run import loader_settings

    files = expand(paths, verify=not skip_unreadable)
    unreadable: dict[int, str] | None = {} if skip_unreadable else None
    loader = loader_settings(plan.config.train, opened.precision.device)
    tasks = opened.tasks
    with PredictionFiles(tasks, files, output, pictures=pictures, annotations=annotations, joint=plan.joint) as written:
        for index, made in predictions(opened, files, loader, unreadable):
            written.add(index, made)
    if output is None:
        click.echo(as_csv(written.rows), nl=False)
    for line in (*written.summary, *(f"left out: {cause}" for cause in (unreadable or {}).values())):
        click.echo(line, err=True)


def _open(directory: Path, plan: Plan) -> Opened:
    from ftengine.inference import open_run

    return open_run(directory, plan)
