"""The sizes of images that backbones are checked at."""

import pytest

from ftengine.protocols import Backbone
from ftengine.testing.backbones import sizes

PATCHES = """
from torch import nn
from ftengine.protocols import Backbone

class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 14, 14)
    def forward(self, images):
        if images.shape[-2] % 14 or images.shape[-1] % 14:
            raise ValueError(f"{list(images.shape)} are no patches")
        return self.embed(images).mean((2, 3), keepdim=True)

def thing(options, context):
    return Backbone({"pooled": Patches()}, {"pooled": 8}, {"pooled": 0}, min_size=14)
"""


@pytest.mark.parametrize(
    ("strides", "min_size", "expected"),
    [
        ({"c1": 2, "c2": 4, "c3": 32}, 1, ((64, 64), (96, 128))),
        ({"c1": 4, "c2": 14, "pooled": 0}, 1, ((56, 56), (84, 112))),
        ({"c1": 4}, 75, ((76, 76), (80, 84))),
        ({"pooled": 0}, 1, ((32, 32), (33, 34))),
        ({"pooled": 0}, 16, ((32, 32), (48, 64))),
    ],
)
def test_every_stride_divides_both_sizes(strides, min_size, expected):
    assert sizes(Backbone({}, dict.fromkeys(strides, 1), strides, min_size=min_size)) == expected


def test_a_network_of_patches_that_gives_a_descriptor_alone_passes(result):
    found = result("channels_and_strides", "backbone", PATCHES, 'levels=("pooled",)')
    assert found.status == "ok", found.text
