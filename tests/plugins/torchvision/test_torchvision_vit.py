"""What is particular to the vision transformers: other image sizes, and the names in published files."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from ftengine.protocols import BackboneContext
from ftengine_torchvision import backbones
from ftengine_torchvision.plugin import ViTOptions

pytestmark = pytest.mark.usefixtures("narrow_vit")


def build(weights: str | None = None, name: str = "vit_b_32"):
    torch.manual_seed(0)
    return getattr(backbones, name)(ViTOptions(), BackboneContext(weights=weights, levels=None)).eval()


def published(backbone) -> dict[str, torch.Tensor]:
    return {backbone.published[key]: tensor for key, tensor in backbone.state_dict().items()}


def test_another_image_size_is_torchvisions_with_interpolated_embeddings() -> None:
    backbone = build()
    state = interpolate_embeddings(288, 32, OrderedDict(published(backbone)))
    model = models.vit_b_32(weights=None, image_size=288).eval()
    model.load_state_dict(state, strict=False)
    model.heads = torch.nn.Identity()
    images = torch.randn(1, 3, 288, 288)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(images)["pooled"].flatten(1), model(images), rtol=1e-5, atol=1e-5)


def test_a_level_keeps_the_patches_in_their_places() -> None:
    backbone = build()
    images = torch.randn(1, 3, 96, 160)
    changed = images.clone()
    changed[:, :, 64:96, 32:64] += 1
    with torch.inference_mode():
        difference = (backbone(changed)["c1"] - backbone(images)["c1"]).abs().amax((0, 1)) > 0
    assert difference.nonzero().tolist() == [[2, 1]]


def test_files_from_before_the_common_mlp_are_read() -> None:
    backbone = build()
    wanted = published(backbone)
    old = {key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): wanted[key] for key in wanted}
    assert old.keys() != wanted.keys()
    adapted = backbone.adapt(old)
    assert adapted.keys() == wanted.keys()
    assert all(adapted[key] is wanted[key] for key in wanted)


def test_embeddings_of_another_size_are_resized_on_loading() -> None:
    backbone = build()
    state = published(backbone)
    state["encoder.pos_embedding"] = torch.randn(1, 1 + 12 * 12, 64)
    adapted = backbone.adapt(state)
    assert adapted["encoder.pos_embedding"].shape == (1, 1 + 7 * 7, 64)
    assert torch.equal(adapted["encoder.pos_embedding"][:, 0], state["encoder.pos_embedding"][:, 0])


def test_weights_of_a_larger_image_size_have_its_grid() -> None:
    backbone = build("IMAGENET1K_SWAG_E2E_V1", "vit_b_16")
    assert backbone.state_dict()["stages.c1.position"].shape == (1, 1 + 24 * 24, 64)
