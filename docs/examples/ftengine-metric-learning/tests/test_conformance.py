"""Every component passes the conformance kit."""

from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from ftengine.testing import PluginConformance

# Several images of a class in each batch, and classes that training does not see; all of it small.
SMALL = {
    "task": {"name": "metric_learning/embedding", "per_class": 4},
    "data": {"format": "metric_learning/digits", "limit": 8},
    "image": {"size": 32},
    "backbone": {"name": "mobilenet_v3_small", "weights": "none"},
    "train": {"batch_size": 8},
}


@pytest.fixture(scope="module", autouse=True)
def faces(tmp_path_factory):
    """The tests run in a folder with six images of each of six people, which the config below names."""
    folder = tmp_path_factory.mktemp("data")
    for person in range(6):
        (folder / "faces" / f"person{person}").mkdir(parents=True)
        for index in range(6):
            pixels = np.random.default_rng([person, index]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "faces" / f"person{person}" / f"{index}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


class TestMetricLearning(PluginConformance):
    plugin = "metric_learning"
    config = SMALL
    configs: ClassVar = {"dataset folder": {"data": {"format": "metric_learning/folder", "images": "faces"}}}
    left_out: ClassVar = {
        "loss triplet: loss_mean": "a batch has triplets that its halves do not have; the mean is over these"
    }
