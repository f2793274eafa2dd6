"""Runs a comparison: everything is checked, then run after run is done, then there is a report.

It can be stopped at any time and continued: what is done is what has a summary in its folder.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from rich.console import Console

from ftengine.checkpoint import Store
from ftengine.children import StoppedBySignal, last_words, run_process
from ftengine.claim import claim
from ftengine.compare import configs
from ftengine.compare.budget import Cost, as_option
from ftengine.compare.chart import draw
from ftengine.compare.check import check_retained, errors, fewest_epochs
from ftengine.compare.configs import StrategiesError, check_backbone
from ftengine.compare.plan import Comparison, Run
from ftengine.compare.progress import Display
from ftengine.compare.report import Outcome, failure, make_report
from ftengine.compare.retain import Retained
from ftengine.compare.stats import duration
from ftengine.compare.tables import show, write
from ftengine.document import Document
from ftengine.errors import ConfigError, FtengineError, TrainingError
from ftengine.files import write_text
from ftengine.plan import Plan
from ftengine.protocols import Task
from ftengine.signals import Interrupted, Signals
from ftengine.trial import read_tasks, try_to_build


class Prepared:
    """A comparison that has been checked: nothing is left that could be known before training.

    `documents` are the strategies' configs, `plans` what they resolve to, `retain` that of the --retain task.
    """

    def __init__(self, comparison: Comparison, documents: dict[str, Document], plans: dict[str, Plan]) -> None:
        self.comparison = comparison
        self.documents = documents
        self.plans = plans
        self.retain: Document | None = None
        self.tasks: dict[str, Task] = {}

    def check(self) -> None:
        """Read the data, and build and freeze every strategy's model. Raises all that is wrong together."""
        self.tasks = read_tasks(next(iter(self.plans.values())))
        configs.refuse(errors(self.plans, self.tasks), len(self.plans))

    def add_retain(self, document: Document, plan: Plan) -> None:
        """Take the --retain task, of which `document` is the config. Raises FtengineError if it cannot be used."""
        compared = next(iter(self.plans.values()))
        check_backbone(plan, compared)
        built = try_to_build(compared, self.tasks)
        if built.adapter is not None:
            built.adapter.merge(built.model.backbone)
        try:
            check_retained(plan, built.model.backbone.stages.state_dict())
        except ConfigError:
            raise
        except FtengineError as error:
            raise FtengineError(f"--retain {document.source}: {error}") from None
        self.retain = document

    def fit(self, budget: float, console: Console, signals: Signals) -> None:
        """Give every run the same share of `budget` seconds: measure each strategy, and set its epochs."""
        share = budget / len(self.plans) / len(self.comparison.seeds)
        costs = {}
        with tempfile.TemporaryDirectory() as folder:
            for name, document in self.documents.items():
                cost = costs[name] = self._measure(name, document, Path(folder), signals)
                epochs = cost.epochs(share)
                line = f"{name}: a step {cost.step:.3g} s, an evaluation {cost.evaluation:.3g} s"
                console.print(f"{line}; {epochs} epochs fit into {duration(share)}", soft_wrap=True)
                self.comparison.epochs[name] = epochs
        self._check_epochs(costs, share)
        for name, epochs in self.comparison.epochs.items():
            self.documents[name] = configs.with_epochs(self.documents[name], epochs)
        self.comparison.budget = budget

    def _measure(self, name: str, document: Document, folder: Path, signals: Signals) -> Cost:
        place = folder / self.comparison.strategies[name]
        config, answer, log = place / "config.yaml", place / "measured.json", place / "log"
        configs.write_config(config, document)
        started = time.monotonic()
        arguments = ["ftengine.compare.measure", str(config), str(answer)]
        code = run_process(arguments, log, self.comparison.folder, signals)
        process = time.monotonic() - started
        if code:
            raise TrainingError(f"{name}: the time of its steps could not be measured\n{last_words(log, code)}")
        train = self.plans[name].config.train
        mixtures = 0 if train.wise_ft is None else len(train.wise_ft.grid)
        return Cost.measured(json.loads(answer.read_text()), process, train.eval_every, mixtures)

    def _check_epochs(self, costs: Mapping[str, Cost], share: float) -> None:
        """Raises StrategiesError if a strategy cannot run for as many epochs as fit, with the budget that would do."""
        lines, needed = [], 0.0
        for name, epochs in self.comparison.epochs.items():
            problem = "not even one epoch fits" if epochs == 0 else self._problem(name, epochs)
            if not problem:
                continue
            most = self.plans[name].config.train.epochs
            enough = fewest_epochs(partial(self._possible, name), epochs, most)
            if enough is not None:
                problem += f"; {enough} would take {duration(costs[name].seconds(enough))}"
                needed = max(needed, costs[name].seconds(enough))
            lines.append(f"  {name}: " + problem.replace("\n", "\n  "))
        if not lines:
            return
        runs = len(self.plans) * len(self.comparison.seeds)
        head = f"--budget leaves {duration(share)} for each of the {runs} runs, which is too short for"
        if needed:
            lines.append(f"use --budget {as_option(1.1 * needed * runs)} or more, fewer strategies, or fewer --seeds")
        raise StrategiesError("\n".join([head, *lines]))

    def _problem(self, name: str, epochs: int) -> str:
        """What keeps a strategy from running for so many epochs; empty if nothing does."""
        document = configs.with_epochs(self.documents[name], epochs)
        ((_, plan),) = configs.plans({name: document})
        if isinstance(plan, FtengineError):
            return str(plan)
        return "".join(str(error) for error in errors({name: plan}, self.tasks).values())

    def _possible(self, name: str, epochs: int) -> bool:
        return not self._problem(name, epochs)

    def write(self, directory: Path) -> None:
        """The comparison's directory: every config, and last of all ``compare.json``."""
        for name, document in self.documents.items():
            configs.write_config(directory / self.comparison.strategies[name] / "config.yaml", document)
        if self.retain is not None:
            configs.write_config(self.comparison.retain_run(directory).config, self.retain)
        self.comparison.save(directory)


def execute(comparison: Comparison, directory: Path, console: Console, signals: Signals) -> None:
    """Do the runs that are not done, and report.

    Raises StoppedBySignal or Interrupted when stopped, after a report of what is done.
    """
    runs = comparison.runs(directory)
    outcomes: list[Outcome] = []
    with claim(directory):
        try:
            retained = None if comparison.retain is None else _retained(comparison, directory, console, signals)
            with Display(comparison, runs, console) as display:
                for run in runs:
                    done = run.summary is not None
                    outcome = _finished(run, retained) if done else _go(run, comparison, display, signals, retained)
                    display.end(outcome, before=done)
                    outcomes.append(outcome)
                    if signals.received is not None:  # while no run was going
                        raise StoppedBySignal(128 + signals.received)
        except (StoppedBySignal, Interrupted):
            if outcomes:
                _report(comparison, outcomes, directory, console, complete=False)
            raise
        _report(comparison, outcomes, directory, console, complete=True)


def _report(
    comparison: Comparison, outcomes: list[Outcome], directory: Path, console: Console, *, complete: bool
) -> None:
    report = make_report(comparison, outcomes, complete=complete)
    write(report, directory)
    draw(report, directory / "comparison.png")
    console.print()
    show(report, console)
    files = ", ".join(f"comparison.{suffix}" for suffix in ("md", "json", "png"))
    console.print(f"written to {directory}: {files}", soft_wrap=True)


def _go(run: Run, comparison: Comparison, display: Display, signals: Signals, retained: Retained | None) -> Outcome:
    display.start(run)
    code = train(run, comparison, signals, display)
    if code or run.summary is None:
        return Outcome(run, error=last_words(run.log, code))
    return _finished(run, retained)


def train(run: Run, comparison: Comparison, signals: Signals, display: Display | None = None) -> int:
    """Start or continue a run in a process of its own; returns its exit code."""
    resumed = bool(Store(run.directory).paths())
    if resumed:
        arguments = ["ftengine", "run", "--resume", str(run.directory)]
    else:
        if run.directory.exists():  # it ended before its first checkpoint: there is nothing in it to keep
            with claim(run.directory):
                shutil.rmtree(run.directory)
        arguments = ["ftengine", "run", "--config", str(run.config), "--set", f"train.seed={run.seed}"]
        arguments += ["--output", str(run.directory)]
    look = (lambda: None) if display is None else display.look
    return run_process(arguments, run.log, comparison.folder, signals, look)


def _finished(run: Run, retained: Retained | None) -> Outcome:
    """A finished run's outcome, with what its backbone lost on the retain data: evaluated once, and kept."""
    summary = run.summary
    assert summary is not None
    problem = failure(summary)
    if problem or retained is None:
        return Outcome(run, summary, problem)
    file = run.directory.with_name(f"{run.directory.name}-retain.json")
    if not file.is_file():
        write_text(file, json.dumps(retained.lost(run.directory)) + "\n")
    values = json.loads(file.read_text())
    return Outcome(run, summary, retained=values if math.isfinite(values["lost"]) else None)


def _retained(comparison: Comparison, directory: Path, console: Console, signals: Signals) -> Retained:
    """The head on the frozen starting backbone that every run's backbone is judged with; trained if it is not yet."""
    run = comparison.retain_run(directory)
    if run.summary is None:
        console.print("retain data: training a head on the frozen starting backbone", soft_wrap=True)
        code = train(run, comparison, signals)
        if code or run.summary is None:
            raise TrainingError(f"the run on the retain data failed; its log is {run.log}\n{last_words(run.log, code)}")
    retained = Retained(run.directory, signals.check)
    console.print(f"retain data: {retained.name} {retained.reference:.4g} on val with the starting backbone")
    return retained
