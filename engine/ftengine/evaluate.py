"""One evaluation pass over a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ftengine.data import Split
from ftengine.dist import World
from ftengine.errors import DataError, TrainingError, unknown
from ftengine.loading import LoaderSettings, batches
from ftengine.model import Model, Result
from ftengine.order import in_order
from ftengine.passes import Passes
from ftengine.plan import Part, Plan
from ftengine.precision import Precision
from ftengine.protocols import Batch, Loss, Metric, Output, Prediction
from ftengine.terms import add_named, scalars


@dataclass
class Evaluation:
    """`values` by name (``accuracy``, or ``<task>/accuracy`` in a joint run); `monitored` decides which is best.

    `details` hold what is too large for a table, such as a confusion matrix.
    """

    values: dict[str, float] = field(default_factory=dict)
    monitored: float = float("nan")
    details: dict[str, Any] = field(default_factory=dict)


Show = Callable[[str, Split, Sequence[int], Sequence[Prediction]], None]
"""Takes a task's name, a split, the indices in it of some samples, and the predictions for these."""


def terms_of(part: Part, loss: Loss, output: Output, batch: Batch) -> Mapping[str, torch.Tensor]:
    """What the loss `part` comes to: scalars by name, at least one. Raises TrainingError if it gives anything else."""
    giver = f"the loss {part.component.name!r} (plugin {part.component.plugin})"
    terms = scalars(giver, loss(output, batch))
    if not terms:
        raise TrainingError(f"{giver} gave no term; expected at least one")
    return terms


def weighted_terms(
    plan: Plan, model: Model, results: Mapping[str, Result]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The weighted sum of all tasks' loss terms, and each term by name, unweighted."""
    total: torch.Tensor | None = None
    terms: dict[str, torch.Tensor] = {}
    for task, result in results.items():
        own = plan.tasks[task]
        for (part, factor), loss in zip(own.losses, model.losses[task], strict=True):  # type: ignore[call-overload]
            for name, term in terms_of(part, loss, result.output, result.batch).items():
                add_named(terms, f"{task}/{name}" if plan.joint else name, term)
                weighted = term * (own.weight * factor)
                total = weighted if total is None else total + weighted
    assert total is not None, "a task has a loss, and a loss has a term"
    return total, terms


@torch.no_grad()
def evaluate(
    plan: Plan,
    model: Model,
    splits: Sequence[tuple[Split, Sequence[str]]],
    metrics: Mapping[str, Sequence[Metric]],
    precision: Precision,
    loader: LoaderSettings,
    show: Show | None = None,
    world: World | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> Evaluation:
    """Run `model` over each split with its tasks; metrics are reset first. The model is left in eval mode.

    Samples in quarantine are left out. `show` is given every prediction, to draw what it will. Raises DataError where
    no sample of a split could be read. Where memory runs out, batches are made smaller if the config allows it, of
    which `warn` is told.

    Of several processes each takes a run of batches; `show` sees this one's. What comes out is the same in all of them,
    and the same as in one process: losses and metrics are merged in the order of the batches, in rank 0. Only there are
    the metrics those of the whole.
    """
    world = world or World()
    model.eval()
    for task_metrics in metrics.values():
        for metric in task_metrics:
            metric.reset()
    batch_size = plan.config.train.eval_batch_size or plan.config.train.batch
    with_loss = all(model.heads[task].loss_in_eval for _, tasks in splits for task in tasks)

    def loss_of(results: Mapping[str, Result]) -> torch.Tensor:
        return weighted_terms(plan, model, results)[0]

    seen = []
    for split, tasks in splits:
        passes = Passes(
            model, precision, tasks, loss_of if with_loss else None, plan.config.train.auto_micro_batch, warn
        )
        losses: list[torch.Tensor] = []
        count, own = 0, in_order(len(split), batch_size)
        for batch in batches(split, [own[index] for index in world.share(len(own))], loader):
            made, total = passes(batch)
            if total is not None:
                losses.append(total)
            for task, predictions in made.items():
                for metric in metrics[task]:
                    metric.update(predictions, batch.truths[task])
                if show is not None:
                    show(task, split, batch.indices, predictions)
            count += len(batch)
        # A synchronisation point, once a pass.
        seen.append(_Seen(count, torch.stack(losses).tolist() if losses else [], {t: metrics[t] for t in tasks}))
    gathered = world.to_main(seen)

    def merge() -> Evaluation:
        for others in gathered[1:]:
            for mine, other in zip(seen, others, strict=True):
                mine.add(other)
        loss = 0.0
        for whole, (split, _) in zip(seen, splits, strict=True):
            if not whole.count:
                raise DataError(f"none of the {len(split)} samples to evaluate on could be read")
            loss += whole.loss()
        return _evaluation(plan, metrics, loss if with_loss else None)

    return world.from_main(merge)


@dataclass
class _Seen:
    """What a process has seen of a split: `count` samples, the summed `losses` of its batches, its tasks' metrics."""

    count: int
    losses: list[float]
    metrics: dict[str, Sequence[Metric]]

    def add(self, other: _Seen) -> None:
        """Add what comes after this."""
        if other.count:
            self.losses += other.losses
            for task, own in self.metrics.items():
                for metric, following in zip(own, other.metrics[task], strict=True):
                    metric.merge(following)
        self.count += other.count

    def loss(self) -> float:
        """The mean over the samples. Summed batch by batch in single precision, whoever has computed them."""
        total = torch.zeros(())
        for value in self.losses:
            total += value
        return float(total) / self.count


def _evaluation(plan: Plan, metrics: Mapping[str, Sequence[Metric]], loss: float | None) -> Evaluation:
    evaluation = Evaluation()
    if loss is not None:
        evaluation.values["loss"] = loss
        if plan.monitor.task is None:
            evaluation.monitored = loss
    _compute(plan, metrics, evaluation)
    return evaluation


def _compute(plan: Plan, metrics: Mapping[str, Sequence[Metric]], evaluation: Evaluation) -> None:
    for task, task_metrics in metrics.items():
        prefix = f"{task}/" if plan.joint else ""
        for index, metric in enumerate(task_metrics):
            values = metric.compute()
            part = plan.tasks[task].metrics[index]
            if (task, index) == (plan.monitor.task, plan.monitor.metric):
                evaluation.monitored = _monitored(part, plan.monitor.key, values)
            for key, value in values.items():
                add_named(evaluation.values, prefix + key, float(value))
            if details := metric.details():
                evaluation.details[prefix + part.spec.name] = details


def _monitored(metric: Part, key: str, values: Mapping[str, float]) -> float:
    if key not in values:
        name, plugin = metric.component.name, metric.component.plugin
        problem = unknown("value", key, values)
        raise TrainingError(f"the metric {name!r} (plugin {plugin}) was to give what its spec promises: {problem}")
    return values[key]
