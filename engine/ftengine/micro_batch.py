"""Out of memory: the same step again, in smaller parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ftengine.errors import TrainingError
from ftengine.model import Model

WORDINGS = ("out of memory", "can't allocate memory", "not enough memory")
"""How torch's allocators say it: the GPU's (torch.OutOfMemoryError), the CPU's on POSIX systems, on Windows."""


def out_of_memory(error: BaseException) -> bool:
    """Whether torch raised `error` because memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in WORDINGS)


@dataclass
class Attempt:
    """One try at a step: `done`, or `text` says what is tried next."""

    done: bool = False
    text: str = ""


@dataclass
class MicroBatches:
    """In how many `parts` each batch is computed, of at most `most` (its samples); `may_grow` when memory runs out.

    `agree` makes of the parts that this process wants those of all processes of the run: the most.
    """

    parts: int
    most: int
    may_grow: bool = False
    agree: Callable[[int], int] = lambda parts: parts

    @contextmanager
    def retry(self, model: Model, optimizer: torch.optim.Optimizer) -> Iterator[Attempt]:
        """Around the computation of a step's gradients: where memory runs out, there are none, and more parts.

        The model's buffers (BatchNorm's statistics) are again as they were before. Raises TrainingError where the
        parts may not or cannot become smaller.
        """
        attempt = Attempt()
        buffers = [buffer.clone() for buffer in model.buffers()] if self.may_grow else []
        try:
            yield attempt
            attempt.done = True
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            cause = _cause(error)
            if not self.may_grow:
                raise TrainingError(
                    f"out of memory in {self._parts()}: {cause}\n  set train.auto_micro_batch: true, raise "
                    "train.accumulate, or lower train.batch_size or image.size"
                ) from None
            if self.parts >= self.most:
                raise TrainingError(f"out of memory with a single image a part: {cause}; lower image.size") from None
            before = self._parts()
            self.parts = min(2 * self.parts, self.most)
            attempt.text = f"out of memory in {before}: the step is done again in {self._parts()}"
        if self.may_grow:
            before, wanted = self._parts(), self.parts
            self.parts = self.agree(wanted)
            if self.parts > wanted:
                attempt.done = False
                attempt.text = f"out of memory in {before} elsewhere: the step is done again in {self._parts()}"
        if not attempt.done:  # outside of the handler, whose traceback holds on to the tensors of the failed attempt
            optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                for buffer, kept in zip(model.buffers(), buffers, strict=True):
                    buffer.copy_(kept)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _parts(self) -> str:
        return f"{self.parts} part{'s' if self.parts > 1 else ''} a batch"


@contextmanager
def memory_for_state() -> Iterator[None]:
    """Around an optimizer's step, which cannot be done again: some weights may have moved, others not."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory in the optimizer's step: {_cause(error)}\n  what it keeps of each weight does not fit: "
            "freeze more stages, or use an optimizer that keeps less, such as sgd or adafactor; a smaller "
            "train.batch_size helps little"
        ) from None


def _cause(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else "memory ran out"
