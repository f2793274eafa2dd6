"""Stages of the transformers: what they hand on is not [B, C, H, W], so their backbones say how to read it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from ftengine.protocols import Backbone


class PatchEmbedding(nn.Module):
    """Images, float [B, 3, H, W], to tokens [B, 1 + H/p * W/p, C]: the class token, then the patches row by row.

    A grid other than the one that the position embeddings were learned on gets them resized bicubically, as
    torchvision's ``interpolate_embeddings`` does (corners aligned; the class token's own is kept).
    """

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.projection = model.conv_proj
        self.class_token = model.class_token
        self.position = model.encoder.pos_embedding
        self.dropout = model.encoder.dropout
        self.grid = model.image_size // model.patch_size

    def forward(self, images: Tensor) -> Tensor:
        patches = self.projection(images)
        rows, columns = patches.shape[-2:]
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        return self.dropout(tokens + self._position(rows, columns))

    def _position(self, rows: int, columns: int) -> Tensor:
        if (rows, columns) == (self.grid, self.grid):
            return self.position
        table = self.position[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))
        table = functional.interpolate(table, size=(rows, columns), mode="bicubic", align_corners=True)
        return torch.cat([self.position[:, :1], table.flatten(2).transpose(1, 2)], 1)


class ClassToken(nn.Module):
    """Tokens [B, 1 + N, C] to the class token as a descriptor [B, C, 1, 1]."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0, :, None, None]


class ViTBackbone(Backbone):
    """Stages hand on tokens [B, 1 + N, C], class token first; a level is their grid [B, C, H / p, W / p]."""

    patch_size: int
    image_size: int

    def feature(self, name: str, state: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens as [B, C, H / p, W / p]; the level ``pooled`` is one already."""
        if name == "pooled":
            return state
        grid = (size[0] // self.patch_size, size[1] // self.patch_size)
        return state[:, 1:].transpose(1, 2).unflatten(2, grid)

    def adapt(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file's tensors under the names and in the shapes of today's torchvision.

        The published files hold the names of the time before `MLP` became a common block (``mlp.linear_1``), and
        position embeddings of another image size are resized.
        """
        renamed = {
            name.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3."): tensor
            for name, tensor in tensors.items()
        }
        if "encoder.pos_embedding" in renamed:
            renamed = interpolate_embeddings(self.image_size, self.patch_size, renamed)  # type: ignore[arg-type]
        return renamed


class SwinBackbone(Backbone):
    """Stages hand on [B, H / s, W / s, C]; a level is [B, C, H / s, W / s], rounded up where H or W does not divide."""

    def feature(self, name: str, state: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, H', W', C] as [B, C, H', W']."""
        return state.permute(0, 3, 1, 2)
