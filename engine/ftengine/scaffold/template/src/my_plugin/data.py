"""Where samples come from, and what is learnt from them. Called as ``factory(options, context)``."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ftengine.errors import DataError, unknown
from ftengine.protocols import Dataset, DatasetContext, Encoder, LabelMap, Prediction, Target, Task, TaskContext

from my_plugin.plugin import OneVsRestOptions, StripesOptions

SIZE = 32


class Stripes(Dataset):
    """Each sample follows from its index alone: no state, no order, no randomness that others share.

    Where images are files, only `image` reads one; it raises DataError with the file's name if it cannot.
    """

    def __init__(self, options: StripesOptions, context: DatasetContext) -> None:
        self.names = {"label": ("upright", "lying")}
        self.labels = [index % 2 for index in range(options.count)]

    def __len__(self) -> int:
        return len(self.labels)

    def sample_id(self, index: int) -> str:
        return f"stripes-{index}"

    def target(self, index: int) -> Target:
        return {"label": self.labels[index]}

    def size(self, index: int) -> tuple[int, int]:
        return SIZE, SIZE

    def image(self, index: int) -> np.ndarray:
        random = np.random.default_rng(index)
        wave = np.sin(np.arange(SIZE) * random.uniform(0.5, 1.5))
        plane = np.broadcast_to(wave[:, None] if self.labels[index] else wave, (SIZE, SIZE))
        grey = 128 + 60 * plane + random.normal(0, 20, (SIZE, SIZE))
        return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)


class OneVsRest(Task):
    """``label`` 1 for the class `positive`, 0 for the others. What is learnt from the data is stored with the model."""

    multi_label = False  # heads for several tasks ask

    def __init__(self, options: OneVsRestOptions, context: TaskContext) -> None:
        self.positive = options.positive

    def fit(self, data: Dataset) -> None:
        names = data.names["label"]
        if self.positive is None:
            self.positive = names[0]
        if self.positive not in names:
            raise DataError(f"train: one_vs_rest.positive: {unknown('class', self.positive, names)}")
        self.labels = LabelMap(("other", self.positive))

    def state(self) -> dict[str, Any]:
        return {"positive": self.positive}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.positive = state["positive"]
        self.labels = LabelMap(("other", state["positive"]))

    def encoder(self, data: Dataset, place: str) -> Encoder:
        names = data.names["label"]
        if self.positive not in names:
            raise DataError(f"{place}: one_vs_rest.positive: {unknown('class', str(self.positive), names)}")
        return OneVsRestEncoder(names.index(self.positive))

    def describe(self, prediction: Prediction) -> dict[str, Any]:
        score = float(prediction["scores"][1])
        return {"label": self.labels.names[score > 0.5], "score": score}

    def perfect(self, encoded: Mapping[str, np.ndarray]) -> Prediction:
        return {"scores": torch.eye(2)[int(encoded["label"])]}


class OneVsRestEncoder:
    """A class of its own, because worker processes get it by pickle. `index`: the class's in this split."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, target: Target) -> dict[str, np.ndarray]:
        return {"label": np.asarray(target["label"] == self.index, np.int64)}
