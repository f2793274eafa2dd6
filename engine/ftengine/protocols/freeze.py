"""What trains, and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a run is: `epoch` counts finished epochs, from 0, of `epochs`."""

    epoch: int
    epochs: int


@dataclass(frozen=True)
class FreezeContext:
    """`stages`: each backbone stage's parameter names, in order; a name is ``<stage>.<name within it>``."""

    stages: Mapping[str, Sequence[str]]


class FreezePolicy(ABC):
    """What does not train, as a pure function of stages and progress: a resumed run computes it anew.

    The result holds stage names and parameter names of the backbone; a stage's name stands for all in it. A
    normalisation layer whose parameters are all frozen stays in eval mode. Heads always train::

        class Probe(FreezePolicy):
            def frozen(self, stages, progress): return set(stages)

    The factory may raise ConfigError-worthy mistakes (a stage that does not exist) as
    :class:`ftengine.errors.FtengineError`; `context.stages` is there for that.
    """

    @abstractmethod
    def frozen(self, stages: Mapping[str, Sequence[str]], progress: Progress) -> set[str]: ...
