"""What a process sees and computes, as digests, to be compared with another's: ``python -m ftengine.repeatable``.

Its arguments are a config and JSON: `start` and `stop`, the steps whose samples to read, and `answer`, the file to
write.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from ftengine.data import Item
from ftengine.document import read
from ftengine.evaluate import weighted_terms
from ftengine.identical import tensor_difference
from ftengine.loading import feed
from ftengine.order import TrainOrder
from ftengine.resolve import resolve
from ftengine.run import assemble
from ftengine.seeding import seed_step
from ftengine.signals import Signals
from ftengine.training import Training


def look(run: Training, start: int, stop: int) -> dict[str, Any]:
    """Digests of every sample of the steps from `start` to `stop`: as the dataset has it, and as a batch gets it.

    `computed`: what is not the same when one batch is computed twice.
    """
    raw, seen = {}, {}
    config = run.plan.config.train
    for name, stream in run.streams.items():
        split = stream.train
        for batch in TrainOrder(len(split), config.batch, config.seed, name, start, stop, split.groups):
            for epoch, index in batch:
                sample = split.data[index]
                raw[f"sample {sample.id} of {name}"] = _digest([sample.image, *map(np.asarray, sample.target.values())])
                item = split[epoch, index]
                if isinstance(item, Item):
                    arrays = [item.image, *(array for one in item.targets.values() for array in one.values())]
                    seen[f"sample {sample.id} of {name} in epoch {epoch + 1}"] = _digest(arrays)
    return {"raw": raw, "seen": seen, "computed": compute_twice(run)}


def compute_twice(run: Training) -> list[str]:
    """What differs when the first batch of each stream is computed twice with the same weights and seeds."""
    plan, model = run.plan, run.model
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = []
    run.begin_epoch(0)
    for name, stream in run.streams.items():
        batch = next(feed(run, name, 0, 1)).to(run.precision.device)
        found: list[dict[str, Tensor]] = []
        for _ in range(2):
            model.load_state_dict(weights)
            model.zero_grad(set_to_none=True)
            seed_step(plan.config.train.seed, 0, run.precision.device)
            with run.precision.autocast():
                forward = model(batch, stream.tasks)
                loss, terms = weighted_terms(plan, model, forward.results)
            loss.backward()  # type: ignore[no-untyped-call]
            made = {f"the backbone {plan.backbone.component.name}": list(forward.features.values())}
            for task, result in forward.results.items():
                tensors = [value for value in result.output.values() if isinstance(value, Tensor)]
                made[f"the head {plan.tasks[task].head.component.name}"] = tensors
            losses = [part.component.name for task in stream.tasks for part, _ in plan.tasks[task].losses]
            made[f"the loss {', '.join(losses)}"] = list(terms.values())
            parameters = [p for p in model.parameters() if p.grad is not None]
            made["the backward pass"] = [p.grad for p in parameters if p.grad is not None]
            found.append({f"{what}/{i}": t.detach().clone() for what, ts in made.items() for i, t in enumerate(ts)})
        said += _first_apart(found[0], found[1])
    return said


def _first_apart(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    for name, tensor in ours.items():
        difference = "gone" if name not in theirs else tensor_difference(tensor, theirs[name])
        if difference:
            what = name.rpartition("/")[0]
            why = "an operation that is not deterministic on this device"
            if not what.endswith("pass"):
                why = f"it has randomness that is not torch's, or {why}"
            same = "with the same weights and seeds"
            return [f"{what} does not give the same twice for one batch, {same} ({difference}): {why}"]
    return []


def _digest(arrays: list[np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def main() -> None:
    wanted = json.loads(sys.argv[2])
    plan = resolve(read(Path(sys.argv[1])))
    torch.set_grad_enabled(True)
    with tempfile.TemporaryDirectory() as folder:
        run = assemble(plan, Path(folder), Console(file=io.StringIO()), Signals(), resume=False)
        answer = look(run, wanted["start"], wanted["stop"])
    Path(wanted["answer"]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
