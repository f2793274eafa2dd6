"""The policy that chooses what trains by the gradients of a few batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftengine.errors import FtengineError
from ftengine.protocols import FreezeContext, FreezePolicy, Progress
from ftengine_freeze.names import with_parameters
from ftengine_freeze.plugin import AutoOptions


class Auto(FreezePolicy):
    """Everything is frozen until the gradients were measured; from then on all but the chosen stages."""

    def __init__(self, options: AutoOptions) -> None:
        self.options = options
        self.chosen: tuple[str, ...] | None = None

    def frozen(self, stages: Mapping[str, Sequence[str]], progress: Progress) -> set[str]:
        # Also once it is chosen, the epochs of the probe are answered as they were.
        chosen = self.chosen if progress.epoch >= self.options.probe_epochs else None
        return set(stages) - set(chosen or ())

    def batches_to_measure(self, progress: Progress) -> int:
        due = self.chosen is None and progress.epoch >= self.options.probe_epochs
        return self.options.batches if due else 0

    def measured(self, relative_gradients: Mapping[str, float]) -> str:
        ranked = sorted(relative_gradients, key=lambda stage: -relative_gradients[stage])
        if not ranked or relative_gradients[ranked[0]] == 0:
            raise FtengineError(
                "freeze.name: auto finds no gradient in any stage to choose by; if the head's weights begin at zero, "
                "let it train first (freeze.probe_epochs: 1), else name the stages with `surgical`"
            )
        if self.options.threshold is None:
            chosen = set(ranked[: self.options.train or 1])
        else:
            least = self.options.threshold * relative_gradients[ranked[0]]
            chosen = {stage for stage in ranked if relative_gradients[stage] >= least}
        self.chosen = tuple(stage for stage in relative_gradients if stage in chosen)
        numbers = ", ".join(f"{stage} {relative_gradients[stage]:.3g}" for stage in relative_gradients)
        return (
            f"freeze: auto trains {', '.join(self.chosen)} beside the heads; gradient norm / weight norm over "
            f"{self.options.batches} batches: {numbers}"
        )

    def state(self) -> dict[str, Any]:
        return {} if self.chosen is None else {"chosen": list(self.chosen)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.chosen = tuple(state["chosen"]) if "chosen" in state else None


def auto(options: AutoOptions, context: FreezeContext) -> Auto:
    """Auto-RGN (Lee et al. 2023, arXiv 2210.11466) with a choice that is made once.

    The stages of the largest relative gradient norm train: so many, or all near the largest. FtengineError if more
    stages are to train than there are, or if the run is over before anything is measured.
    """
    stages = with_parameters(context)
    if (options.train or 1) > len(stages):
        raise FtengineError(
            f"freeze.train: {options.train or 1} stages are to train, and {len(stages)} have parameters"
            + (f" ({', '.join(stages)})" if stages else "; use `all`")
        )
    if options.probe_epochs >= context.epochs:
        raise FtengineError(
            f"freeze.probe_epochs: auto measures after epoch {options.probe_epochs}, and the run has {context.epochs}; "
            f"at most {context.epochs - 1} would do, or train.epochs of at least {options.probe_epochs + 1}"
        )
    return Auto(options)
