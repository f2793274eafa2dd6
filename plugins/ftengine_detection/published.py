"""Torchvision's published detectors: where the files are, and what their tensors are called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

BODY = "backbone.body."
"""What stands before the names of the backbone's tensors."""

PYRAMID = (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2")
"""Files from before torchvision 0.13 have the pyramid's convolutions without the block around them."""

Renaming = tuple[str, str]
"""A pattern for a whole name, and what it is replaced by, as `re.sub` takes them."""


def stock_name(name: str) -> str:
    """The name in torchvision's detectors of a head's tensor: the pyramid is part of their backbone."""
    return f"backbone.{name}" if name.startswith("fpn.") else name


def stock_names(head: nn.Module) -> dict[str, str]:
    """All of a head's ``state_dict`` names, each with torchvision's."""
    return {name: stock_name(name) for name in head.state_dict()}


def renamed(tensors: Mapping[str, Tensor], renamings: Sequence[Renaming]) -> dict[str, Tensor]:
    """`tensors` of an older file under the names of today; torchvision's own modules do this as they load."""
    found = {}
    for name, tensor in tensors.items():
        for pattern, replacement in renamings:
            name = re.sub(pattern, replacement, name)
        found[name] = tensor
    return found
