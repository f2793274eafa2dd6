"""What a fine-tuned backbone has lost on data that the one it started from could do.

A head is trained for the retain task on the frozen starting backbone, once (a linear probe). Its value there is the
reference. Then each fine-tuned backbone, with adapters merged, is put under that same head, which stays as it was, and
evaluated on the retain task's `val` split in the retain config's image size::

    lost = reference - value         (value - reference, where smaller is better)

So a backbone that has not moved has lost exactly 0, and one whose features have turned has lost what the old head could
do with them. A head trained anew on the moved features might get part of that back: this is the loss of a model that
already serves, as in Li and Hoiem, Learning without Forgetting (2017).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ftengine.checkpoint import best_or_last
from ftengine.export import open_merged
from ftengine.inference import evaluate_run, open_run
from ftengine.resolve import resolve
from ftengine.run import loader_settings
from ftengine.run_config import run_document


def finetuned_backbone(run: Path) -> dict[str, Tensor]:
    """The backbone of a run's best checkpoint, adapters merged, by names within ``backbone.stages``; on the CPU."""
    merged = open_merged(run, resolve(run_document(run), trained=True), best_or_last(run))
    return dict(merged.model.backbone.stages.state_dict())


class Retained:
    """The run in `directory`, a head on the frozen starting backbone, ready for other backbones.

    `check` is called before each batch of an evaluation, which ends with what it raises.
    """

    def __init__(self, directory: Path, check: Callable[[], None] = lambda: None) -> None:
        self._opened = open_run(directory, resolve(run_document(directory), trained=True))
        loader = loader_settings(self._opened.plan.config.train, self._opened.precision.device)
        self._loader = replace(loader, check=check)
        self._start = copy.deepcopy(self._opened.model.backbone.stages.state_dict())
        self.name = self._opened.plan.monitor.name
        self.reference = self._value()

    def lost(self, run: Path) -> dict[str, float]:
        """``value`` and ``lost`` of a run's fine-tuned backbone, in the unit of the retain task's primary metric."""
        theirs = finetuned_backbone(run)
        stages = self._opened.model.backbone.stages
        stages.load_state_dict({name: theirs[name] for name in self._start})
        value = self._value()
        stages.load_state_dict(self._start)
        lost = value - self.reference if self._opened.plan.monitor.mode == "min" else self.reference - value
        return {"reference": self.reference, "value": value, "lost": lost}

    def _value(self) -> float:
        return evaluate_run(self._opened, "val", self._loader).monitored
