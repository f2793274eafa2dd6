"""Proof that a config's runs resume exactly: one that is not stopped, one that is, and what differs.

Both are the user's own command in processes of their own, ``ftengine run … --stop-after N``, so that nothing is carried
from one to the other but files. Where they differ, a second whole run and a look at batches and components tell why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftengine.build import make_streams, make_tasks
from ftengine.children import last_words, run_process
from ftengine.errors import FtengineError, TrainingError
from ftengine.identical import Comparison, compare_runs
from ftengine.plan import Plan
from ftengine.signals import Signals

LONG = 18
"""Steps from which on an epoch is too long to be crossed unasked."""
STEPS = 20


@dataclass(frozen=True)
class Points:
    """Where the runs stop: both after `steps`, one of them after `at` too; an epoch has `per_epoch` steps."""

    steps: int
    at: int
    per_epoch: int

    @property
    def crossed(self) -> bool:
        """Whether an epoch ends between the stop and the end."""
        return self.at // self.per_epoch < self.steps // self.per_epoch


def choose_points(plan: Plan, steps: int | None, at: int | None) -> Points:
    """Where to stop: in the middle of an epoch, and, if epochs are short, before the end of one.

    Reads the data to know how long an epoch is. Raises FtengineError for numbers that do not fit the run.
    """
    config = plan.config.train
    streams = make_streams(plan, make_tasks(plan)).values()
    per_epoch = max(len(stream.train) // config.batch for stream in streams)
    total = per_epoch * config.epochs
    if total < 2:
        raise FtengineError("the run has a single step: it cannot be stopped in the middle")
    if steps is None:
        wanted = per_epoch + max(1, per_epoch // 2) if per_epoch <= LONG else STEPS
        steps = min(total, max(wanted, 2 if at is None else at + 1))
    if not 2 <= steps <= total:
        raise FtengineError(f"--steps {steps}: expected 2 to {total}, the steps of the run")
    if at is None:
        at = min(max(1, min(per_epoch, steps) // 2), steps - 1)
    if not 1 <= at < steps:
        raise FtengineError(f"--at {at}: expected 1 to {steps - 1}, before the last of {steps} steps")
    return Points(steps, at, per_epoch)


@dataclass
class Verifier:
    """Runs pieces of a run in `folder`. `arguments`: those of ``ftengine run`` that make the config."""

    arguments: Sequence[str]
    folder: Path
    points: Points
    signals: Signals
    say: Callable[[str], None]

    def verify(self) -> Comparison:
        """The whole run against the one that was stopped and resumed."""
        steps, at = self.points.steps, self.points.at
        self.say(f"1 of 3: {steps} steps without a stop")
        self._start("whole")
        self.say(f"2 of 3: {at} steps, stopped")
        self._start("resumed", stop=at)
        self.say(f"3 of 3: resumed in a new process, up to step {steps}")
        self._run("resumed", ["--resume", str(self.folder / "resumed")], steps)
        return compare_runs(self.folder / "whole", self.folder / "resumed")

    def causes(self, plan: Plan) -> list[str]:
        """Why the two differ, as far as can be told: sentences."""
        self.say("they differ; looking for the cause: another run without a stop")
        self._start("again")
        again = compare_runs(self.folder / "whole", self.folder / "again")
        self.say("reading the samples twice, and computing a batch twice")
        found = self._look(plan)
        if not again.differences:
            said = "two runs without a stop are identical: what is lost is lost by the resume"
            return [said, *found, *([] if found else [_suspects(plan, "keeps state that no checkpoint holds")])]
        said = f"two runs without a stop differ too, first in {again.differences[0]}: the run itself is not repeatable"
        return [said, *(found or [_suspects(plan, "has randomness of its own")])]

    def _start(self, name: str, stop: int | None = None) -> None:
        self._run(name, [*self.arguments, "--output", str(self.folder / name)], stop or self.points.steps)

    def _run(self, name: str, arguments: Sequence[str], stop: int) -> None:
        log = self.folder / f"{name}.log"
        # SIGTERM is how a stop ends, also one that was asked for; 0: the run was over before.
        command = ["ftengine", "run", *arguments, "--stop-after", str(stop)]
        code = run_process(command, log, ".", self.signals, accepted=(143,))
        if code not in (0, 143):
            raise TrainingError(f"the run to verify has failed:\n{last_words(log, code)}")

    def _look(self, plan: Plan) -> list[str]:
        """What two processes see in the same samples, and one process in the same batch."""
        seen = []
        for number, start in enumerate((0, self.points.at)):
            file, log = self.folder / f"looked-{number}.json", self.folder / f"looked-{number}.log"
            wanted = json.dumps({"start": start, "stop": self.points.steps, "answer": str(file)})
            resolved = str(self.folder / "whole" / "resolved.yaml")
            code = run_process(["ftengine.repeatable", resolved, wanted], log, ".", self.signals)
            if code:
                return [f"the samples could not be read again:\n{last_words(log, code)}"]
            seen.append(json.loads(file.read_text()))
        said: list[str] = []
        for kind, what in (("raw", "dataset"), ("seen", "augmentation")):
            both = seen[0][kind].keys() & seen[1][kind].keys()
            other = sorted(key for key in both if seen[0][kind][key] != seen[1][kind][key])
            if other and not said:
                names = ", ".join(sorted(part.component.name for part in plan.streams.values()))
                owner = f"dataset {names}" if what == "dataset" else "augmentation (`augment`)"
                said.append(
                    f"the {owner} does not give the same sample twice: {len(other)} of {len(both)} differ between two "
                    f"processes, first {other[0]}"
                )
        return said + [text for text in seen[0]["computed"] if text]


def _suspects(plan: Plan, what: str) -> str:
    """The components that others have written, if any, else where to look."""
    parts = {part.component.name for task in plan.tasks.values() for part, _ in task.losses}
    parts |= {task.head.component.name for task in plan.tasks.values()}
    parts |= {plan.backbone.component.name, plan.freeze.component.name}
    parts |= {part.component.name for part in plan.streams.values()}
    foreign = sorted(name for name in parts if "/" in name)
    if foreign:
        return f"look first at what is not built in, whether it {what}: {', '.join(foreign)}"
    return "nothing in the config is a plugin of others: please report this"
