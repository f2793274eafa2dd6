"""A finished run's model, put to use: evaluation of a split, and predictions for images."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ftengine.build import make_dataset, make_model, make_split, make_splits, make_tasks
from ftengine.checkpoint import Store, best_or_last, load_model
from ftengine.config_faults import BadSampleConfig
from ftengine.data import Split
from ftengine.document import missing_file
from ftengine.errors import DataError
from ftengine.evaluate import Evaluation, evaluate
from ftengine.images import find_images, read_image, require_images
from ftengine.loading import LoaderSettings, batches
from ftengine.model import Model
from ftengine.order import in_order
from ftengine.passes import Passes
from ftengine.plan import Plan
from ftengine.precision import Precision
from ftengine.protocols import Dataset, Metric, Prediction, Target, Task
from ftengine.quarantine import Quarantine
from ftengine.run_state import load_tasks


@dataclass
class Opened:
    """A run's plan with its model, in eval mode, from `checkpoint`."""

    plan: Plan
    tasks: Mapping[str, Task]
    model: Model
    metrics: Mapping[str, list[Metric]]
    precision: Precision
    checkpoint: Path


def open_run(directory: Path, plan: Plan) -> Opened:
    """Load the best checkpoint of a run (the last, where none was the best)."""
    path = best_or_last(directory)
    checkpoint = Store(directory).load(path, for_training=False)
    tasks = make_tasks(plan)
    load_tasks(tasks, checkpoint)
    built = make_model(plan, tasks, pretrained=False)
    load_model(built.model, checkpoint.model, path)
    precision = Precision(plan.config.train, built.model.backbone.channels_last)
    precision.place(built.model)
    built.model.eval()
    return Opened(plan, tasks, built.model, built.metrics, precision, path)


def evaluate_run(run: Opened, which: str, loader: LoaderSettings) -> Evaluation:
    """Evaluate on `train`, `val` or `test`: the same split, held out in the same way, as in training.

    What could not be read, and the config allows to leave out, is in the details as ``left out``: id -> cause.
    """
    splits: list[tuple[Split, Sequence[str]]] = []
    for stream in run.plan.streams:
        own = tuple(name for name, task in run.plan.tasks.items() if task.stream == stream)
        part = run.plan.streams[stream]
        if which != "train" and getattr(part.options, which) is not None:  # the training split need not be there
            data: Dataset | None = make_dataset(run.plan, stream, which)
        else:
            data = getattr(make_splits(run.plan, stream, run.tasks), which)
        if data is None:
            raise DataError(f"the run has no {which} split; name one with --set data.{which}=PATH")
        splits.append((make_split(run.plan, run.tasks, data, which, own, stream=stream), own))
    evaluation = evaluate(run.plan, run.model, splits, run.metrics, run.precision, loader)
    bad = [sample for split, _ in splits if split.quarantine is not None for sample in split.quarantine.noted.values()]
    if bad:
        evaluation.details["left out"] = {sample.id: sample.cause for sample in bad}
    return evaluation


class ImageFiles(Dataset):
    """Unlabelled image files."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self.names = {}

    def __len__(self) -> int:
        return len(self.files)

    def target(self, index: int) -> Target:
        return {}

    def image(self, index: int) -> np.ndarray:
        return read_image(self.files[index])

    def sample_id(self, index: int) -> str:
        return str(self.files[index])


def expand(paths: Iterable[str], *, verify: bool = True) -> list[Path]:
    """Files, folders (all images below) and glob patterns as image files, each once, in order.

    Raises DataError for a path that gives none, and with `verify` for images whose headers cannot be read.
    """
    files: dict[Path, None] = {}
    for text in paths:
        path = Path(text).expanduser()
        if path.is_dir():
            found = find_images(path)
        elif path.is_file():
            found = [path]
        else:
            found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]
        if not found:
            raise DataError(f"{text}: " + ("no images in this folder" if path.is_dir() else missing_file(path)))
        files |= dict.fromkeys(found)
    if verify:
        require_images(list(files), "predict")
    return list(files)


@torch.no_grad()
def predict(
    run: Opened, files: Sequence[Path], loader: LoaderSettings, unreadable: dict[int, str] | None = None
) -> Iterator[tuple[int, dict[str, Prediction]]]:
    """For each image its index in `files`, and each task's prediction.

    An image that cannot be read is a DataError; with `unreadable` it is left out, and its index put there with the
    cause. It is one, too, if that is all of them.
    """
    quarantine = None
    if unreadable is not None:
        quarantine = Quarantine("", "predict", len(files), BadSampleConfig(policy="quarantine", budget=len(files)))
    split = Split(ImageFiles(files), {}, {}, run.plan.config.image, quarantine=quarantine)
    batch_size = run.plan.config.train.eval_batch_size or run.plan.config.train.batch
    passes = Passes(run.model, run.precision, list(run.tasks), may_split=run.plan.config.train.auto_micro_batch)
    for batch in batches(split, in_order(len(split), batch_size), loader):
        made, _ = passes(batch)
        for offset in range(len(batch)):
            yield batch.indices[offset], {name: predictions[offset] for name, predictions in made.items()}
    if quarantine is not None and unreadable is not None:
        unreadable |= {index: sample.cause for index, sample in sorted(quarantine.noted.items())}
        if len(unreadable) == len(files):
            raise DataError(f"predict: none of {len(files)} images can be read; the first: {unreadable[0]}")
