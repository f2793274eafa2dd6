"""Every component passes the conformance kit."""

from typing import ClassVar

import pytest

from ftengine.testing import PluginConformance

# Small enough for a laptop, and what all components are for: clips.
SMALL = {
    "data": {"format": "video/moving_digits", "count": 24, "frames": 6, "size": 32, "digit_size": 16},
    "image": {"size": 32},
    "backbone": {"name": "video/mc3_18", "weights": "none"},
    "head": {"name": "video/action"},
}


@pytest.fixture(scope="module", autouse=True)
def beside_the_clips(clips):
    """The tests run in the folder of the clips, which the config below names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clips)
        yield


class TestVideo(PluginConformance):
    plugin = "video"
    config = SMALL
    configs: ClassVar = {
        "backbone s3d": {"data": {"frames": 8}},
        "dataset clips": {"data": {"train": "train", "frames": 5}},
    }
