"""Batches through a model in eval mode: whole, or in smaller parts where the memory is too small for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ftengine.micro_batch import OutOfMemoryError, cause_of, free_memory, out_of_memory
from ftengine.model import Model, Result, StreamBatch
from ftengine.precision import Precision
from ftengine.protocols import Prediction


@dataclass
class Passes:
    """Called with a batch, it returns each task's predictions, and the summed `loss` of its samples if that is given.

    Where memory runs out, batches are run in twice as many `parts` if they `may_split`, which changes predictions
    by rounding only, and `warn` is told; a loss becomes the mean of the parts' own. Raises OutOfMemoryError where
    that does not help.
    """

    model: Model
    precision: Precision
    tasks: Sequence[str]
    loss: Callable[[Mapping[str, Result]], Tensor] | None = None
    may_split: bool = False
    warn: Callable[[str], None] = lambda text: None
    parts: int = 1

    def __call__(self, batch: StreamBatch) -> tuple[dict[str, list[Prediction]], Tensor | None]:
        while True:
            try:
                return self._run(batch)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._split(len(batch), cause_of(error))
            free_memory()  # outside of the handler, whose traceback holds on to the tensors of the failed attempt

    def _run(self, batch: StreamBatch) -> tuple[dict[str, list[Prediction]], Tensor | None]:
        predictions: dict[str, list[Prediction]] = {task: [] for task in self.tasks}
        total: Tensor | None = None
        for part in batch.split(self.parts):
            with self.precision.autocast():
                results = self.model(part.to(self.precision.device), self.tasks).results
                if self.loss is not None:
                    value = self.loss(results).float() * len(part)
                    total = value if total is None else total + value
            for task in self.tasks:
                head = self.model.heads[task]
                predictions[task] += head.predict(results[task].output, results[task].batch)  # type: ignore[operator]
        return predictions, total

    def _split(self, images: int, cause: str) -> None:
        found = f"out of memory in the evaluation of {-(-images // self.parts)} images at a time: {cause}"
        if not self.may_split:
            raise OutOfMemoryError(f"{found}\n  set train.eval_batch_size to less, or train.auto_micro_batch: true")
        if self.parts >= images:
            raise OutOfMemoryError(f"{found}\n  lower image.size, or image.window for large images")
        self.parts = min(2 * self.parts, images)
        self.warn(f"{found}\n  it goes on in {self.parts} parts a batch, with the same predictions up to rounding")
