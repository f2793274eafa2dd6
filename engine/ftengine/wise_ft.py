"""Weights between those that a run started from and those that it ended with (WiSE-FT, Wortsman et al. 2022)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ftengine.checkpoint import Checkpoint, Snapshot, load_model
from ftengine.config_train import WiseFtConfig
from ftengine.disk import publish
from ftengine.finite import without_nan
from ftengine.judge import Best
from ftengine.loop import evaluate_split
from ftengine.run_state import check_state
from ftengine.start import load_start

if TYPE_CHECKING:
    from ftengine.training import Training


def mix_with_start(run: Training, config: WiseFtConfig, directory: Path) -> None:
    """Evaluate (1 - a) * start + a * end on `val` for each `a` of the grid, where the end is the last checkpoint.

    A mixture that is better than every checkpoint so far is saved, and becomes the best. All evaluations are written
    to ``wise_ft.json``. A run whose best is such a mixture keeps it.
    """
    name = f"step-{run.step:08d}-mixed"

    def done() -> Checkpoint | None:
        best = run.store.find("best")
        if best is None or best.name != name:
            return None
        found = run.store.load(best, for_training=False)
        check_state(found.state, best)
        return found if found.state["monitor"] == run.plan.monitor.name else None

    def ends() -> tuple[Checkpoint, dict[str, Tensor]]:
        end = run.store.find("last")
        assert end is not None
        return run.store.load(end, for_training=True), load_start(directory, run.start)

    before_this = run.world.from_main(done)
    if before_this is not None:
        run.judge.load_state(before_this.state["judge"])
        return
    last, start = run.world.from_main(ends)
    before, chosen, rows = run.judge.best.value, None, []
    run.tracker.say(f"mixing the weights of the start and of epoch {run.epoch:g}")
    for alpha in sorted(config.grid, reverse=True):  # from the end on: of two that are equal, the nearer to it
        load_model(run.judged, mixed(start, last.model, alpha, heads=config.heads), last.path)
        evaluation = evaluate_split(run, "val", pictures=False)
        rows.append({"alpha": alpha, **without_nan(evaluation.values)})
        value = run.judge.value(evaluation)
        better = run.judge.gain(value, run.judge.best.value) > 0
        if better:
            chosen = alpha
            run.judge.adopt(Best(value, run.step, round(run.epoch), dict(evaluation.values), mixed=alpha))
        mark = "  best so far" if better else ""
        run.tracker.say(f"  {alpha:.2f} of the end: {run.plan.monitor.name} {evaluation.monitored:.4g}{mark}")
    text = json.dumps({"primary": run.plan.monitor.name, "chosen": chosen, "grid": rows}, indent=1)
    if run.world.main:
        publish(directory / "wise_ft.json", [text.encode() + b"\n"])
    if chosen is None:
        run.tracker.say(f"no mixture is better than the best checkpoint, {before:.4g}: that stays")
    if chosen is None or not run.world.main:
        return
    state = {**last.state, "judge": run.judge.state(), "wise_ft": chosen}
    path = run.store.write(name, Snapshot(mixed(start, last.model, chosen, heads=config.heads), {}, {}, state))
    run.store.point("best", path)
    run.store.prune()
    run.tracker.saved(path)


def mixed(start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float, *, heads: bool) -> dict[str, Tensor]:
    """(1 - alpha) * start + alpha * end for parameters and BatchNorm's statistics alike, in float32.

    What is no floating-point number is the end's, and so are heads and losses unless `heads` says otherwise.
    """
    return {
        name: torch.lerp(start[name].float(), tensor.float(), alpha).to(tensor.dtype)
        if tensor.is_floating_point() and (heads or name.startswith("backbone."))
        else tensor
        for name, tensor in end.items()
    }
