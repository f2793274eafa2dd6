"""Out of memory: the same step again, in smaller parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from ftengine.errors import TrainingError
from ftengine.guard import KeptBuffers
from ftengine.model import Model

WORDINGS = ("out of memory", "can't allocate memory", "not enough memory")
"""How torch's allocators say it: the GPU's (torch.OutOfMemoryError), the CPU's on POSIX systems, on Windows."""


class OutOfMemoryError(TrainingError):
    """Something does not fit into the memory, and may not or cannot be done in smaller parts."""


def out_of_memory(error: BaseException) -> bool:
    """Whether torch raised `error` because memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in WORDINGS)


def cause_of(error: BaseException) -> str:
    """The first line of what the allocator says."""
    return str(error).splitlines()[0] if str(error) else "memory ran out"


@contextmanager
def memory_for(what: str, advice: str) -> Iterator[None]:
    """Within, memory that runs out becomes an OutOfMemoryError, which says for `what` it was, and gives `advice`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise OutOfMemoryError(f"out of memory {what}: {cause_of(error)}\n  {advice}") from None


def memory_for_state() -> AbstractContextManager[None]:
    """Around an optimizer's step, which cannot be done again: some weights may have moved, others not."""
    return memory_for(
        "in the optimizer's step",
        "what it keeps of each weight does not fit: freeze more stages, or use an optimizer that keeps less, such as "
        "sgd or adafactor; a smaller train.batch_size helps little",
    )


def free_memory() -> None:
    """Give back what torch holds of a GPU's memory without using it, so that pieces of other sizes find room."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass
class Attempt:
    """One try at a step: `done`, or `text` says what is tried next."""

    done: bool = False
    text: str = ""


@dataclass
class MicroBatches:
    """In how many `parts` each batch of `batch_size` is computed; `may_grow` when memory runs out.

    `agree` makes of the parts that this process wants those of all processes of the run: the most. A part has `least`
    samples, 1 or 2.
    """

    parts: int
    batch_size: int
    may_grow: bool = False
    agree: Callable[[int], int] = lambda parts: parts
    least: int = 1

    def __post_init__(self) -> None:
        self._told = False
        self._wanted = self.parts

    @property
    def grown(self) -> bool:
        """Whether there are more parts than at first, because memory ran out."""
        return self.parts > self._wanted

    @contextmanager
    def retry(self, model: Model, optimizer: torch.optim.Optimizer) -> Iterator[Attempt]:
        """Around the computation of a step's gradients: where memory runs out, there are none, and more parts.

        The model's buffers (BatchNorm's statistics) are again as they were before. Raises OutOfMemoryError where the
        parts may not or cannot become smaller.
        """
        attempt = Attempt()
        buffers = KeptBuffers([model] if self.may_grow else [])
        buffers.keep()
        before = self._in_parts()
        try:
            yield attempt
            attempt.done = True
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            self._halve(cause_of(error))
            attempt.text = f"out of memory in {before}: {cause_of(error)}"
        if self.may_grow:
            wanted, self.parts = self.parts, self.agree(self.parts)
            if self.parts > wanted:
                attempt.done, attempt.text = False, f"out of memory in {before} in another process"
        if not attempt.done:  # outside of the handler, whose traceback holds on to the tensors of the failed attempt
            attempt.text += self._what_next(model)
            optimizer.zero_grad(set_to_none=True)
            buffers.restore()
            free_memory()

    def _halve(self, cause: str) -> None:
        if not self.may_grow:
            raise OutOfMemoryError(
                f"out of memory in {self._in_parts()}: {cause}\n  set train.auto_micro_batch: true, raise "
                "train.accumulate, or lower train.batch_size or image.size"
            )
        most = max(1, self.batch_size // self.least)
        if self.parts >= most:
            why = "" if self.least == 1 else ", and a single image is too few for mixing or a BatchNorm layer"
            raise OutOfMemoryError(
                f"out of memory in {self._in_parts()}{why}: {cause}\n  lower image.size, or freeze more stages"
            )
        self.parts = min(2 * self.parts, most)

    def _what_next(self, model: Model) -> str:
        text = f"\n  the step is done again in {self._in_parts()}; it takes the same batch as before"
        norms = (module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
        if not self._told and any(norm.training for norm in norms):
            text += "\n  BatchNorm normalises over each part: from now on it trains as with smaller batches"
        self._told = True
        return text

    def _in_parts(self) -> str:
        size = -(-self.batch_size // self.parts)
        images = f"{size} image{'s' if size > 1 else ''}"
        return f"a batch of {images}" if self.parts == 1 else f"{self.parts} parts of at most {images}"
