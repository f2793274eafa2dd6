"""What trains, and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Where a run is: `epoch` counts finished epochs, from 0, of `epochs`."""

    epoch: int
    epochs: int


@dataclass(frozen=True)
class FreezeContext:
    """`stages`: each backbone stage's parameter names, in order; a name is ``<stage>.<name within it>``.

    `heads`: the same of each head, as ``head`` (one task) or ``head.<task>``. `norms`: those of all these names that
    belong to normalisation layers. `epochs`: how many the run has.
    """

    stages: Mapping[str, Sequence[str]]
    heads: Mapping[str, Sequence[str]] = field(default_factory=dict)
    norms: frozenset[str] = frozenset()
    epochs: int = 1


class FreezePolicy(ABC):
    """What does not train, as a pure function of stages and progress: a resumed run computes it anew.

    The result holds names of stages, heads and parameters; a stage's name stands for all in it. A normalisation layer
    whose parameters are all frozen stays in eval mode (with ``frozen_norm: eval``)::

        class Probe(FreezePolicy):
            def frozen(self, stages, progress): return set(stages)

    A factory may raise :class:`ftengine.errors.FtengineError` for a mistake (a stage that does not exist);
    `context.stages` is there for that.

    A policy that must see gradients first says in `batches_to_measure` of how many batches; the engine measures them
    before the epoch begins, calls `measured`, and keeps `state` with the run, so that a resumed one does the same.
    """

    @abstractmethod
    def frozen(self, stages: Mapping[str, Sequence[str]], progress: Progress) -> set[str]: ...

    def batches_to_measure(self, progress: Progress) -> int:
        """How many batches' gradients it wants to see before the epoch of `progress`; 0: none."""
        return 0

    def measured(self, relative_gradients: Mapping[str, float]) -> str:
        """Take each stage's ‖gradient‖ / ‖weights‖, of the mean gradient over the batches; a sentence for the log."""
        raise NotImplementedError(f"{type(self).__name__} asks for gradients and has no method `measured`")

    def state(self) -> dict[str, Any]:
        """What `measured` left, as JSON data."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - most policies have no state
        """Take back what `state` returned."""
