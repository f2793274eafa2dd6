"""Torchvision models taken apart into ordered stages. Each builder's name is a factory here, by family below.

Level ``ci`` has stride 2^i in a convolutional network. ``pooled``, [B, C, 1, 1], is there where the published
classifier read something else than the mean of the last map. Models are built without weights: the engine loads
them, by the names in `published`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torchvision import models
from torchvision.models.convnext import ConvNeXt
from torchvision.models.inception import Inception3
from torchvision.ops import StochasticDepth

from ftengine.errors import WeightsError
from ftengine.plugin import Options
from ftengine.protocols import Backbone, BackboneContext
from ftengine_torchvision.catalogue import FAMILY, FEATURES
from ftengine_torchvision.depth import add_stochastic_depth
from ftengine_torchvision.staging import Stages, assemble, by_pool, by_stride, published_weights
from ftengine_torchvision.transformers import ClassToken, PatchEmbedding, SwinBackbone, ViTBackbone


def build_resnet(name: str, options: Any, context: BackboneContext) -> Backbone:
    """ResNet, ResNeXt and Wide ResNet: c1 the first convolution, c2 pooling and ``layer1``, c3 … c5 the other layers.

    Level ci is [B, C, H / 2^i, W / 2^i], rounded up. C of c5: 512 with basic blocks, 2048 with bottlenecks.
    """
    model = models.get_model(name, weights=None)
    add_stochastic_depth(model, options.stochastic_depth)
    stages: Stages = {
        "c1": nn.Sequential(model.conv1, model.bn1, model.relu),
        "c2": nn.Sequential(model.maxpool, model.layer1),
        "c3": model.layer2,
        "c4": model.layer3,
        "c5": model.layer4,
    }
    return assemble(name, model, stages, context, output_stride=options.output_stride)


def build_vgg(name: str, options: Any, context: BackboneContext) -> Backbone:
    """VGG: c1 … c5 are the five blocks, each with its pooling: [B, 64 … 512, H / 2^i, W / 2^i], rounded down.

    ``pooled`` is [B, 4096, 1, 1]: what the last layer of the published classifier read.
    """
    model = models.get_model(name, weights=None, dropout=options.dropout, init_weights=context.weights is None)
    stages = by_pool(model.features)
    stages["pooled"] = nn.Sequential(
        model.avgpool, nn.Flatten(), *list(model.classifier)[:-1], nn.Unflatten(1, (4096, 1, 1))
    )
    if context.weights == FEATURES:
        if "pooled" in (context.levels or ()):
            raise WeightsError(
                f"{name}: the weights {FEATURES} have no values for the level 'pooled', only for c1 … c5; "
                "use IMAGENET1K_V1, or a head on c5"
            )
        del stages["pooled"]
    return assemble(name, model, stages, context, output_stride=options.output_stride, min_size=options.output_stride)


def build_inception(name: str, options: Options, context: BackboneContext) -> Backbone:
    """Inception v3: [B, C, h, w] with C = 64, 192, 288, 768, 2048.

    Its convolutions are not padded, so that a level is up to 5 pixels smaller than H / 2^i. `mean` and `std` are
    those it was trained with (0.5); torchvision's own model gets there from ImageNet's by ``transform_input``.
    """
    model: Inception3 = models.get_model(
        name, weights=None, init_weights=context.weights is None, transform_input=False
    )
    stages: Stages = {
        "c1": nn.Sequential(model.Conv2d_1a_3x3, model.Conv2d_2a_3x3, model.Conv2d_2b_3x3),
        "c2": nn.Sequential(model.maxpool1, model.Conv2d_3b_1x1, model.Conv2d_4a_3x3),
        "c3": nn.Sequential(model.maxpool2, model.Mixed_5b, model.Mixed_5c, model.Mixed_5d),
        "c4": nn.Sequential(model.Mixed_6a, model.Mixed_6b, model.Mixed_6c, model.Mixed_6d, model.Mixed_6e),
        "c5": nn.Sequential(model.Mixed_7a, model.Mixed_7b, model.Mixed_7c),
    }
    channels = {"c1": 64, "c2": 192, "c3": 288, "c4": 768, "c5": 2048}
    half = (0.5, 0.5, 0.5)
    return assemble(name, model, stages, context, channels=channels, min_size=75, mean=half, std=half)


def build_convnext(name: str, options: Any, context: BackboneContext) -> Backbone:
    """ConvNeXt: c2 the 4x4 patches and the first stage, c3 … c5 the others: [B, C, H / 2^i, W / 2^i], rounded down.

    ``pooled``, [B, C, 1, 1], is the mean of c5 after the published classifier's layer normalisation.
    """
    model: ConvNeXt = models.get_model(name, weights=None, **_stochastic_depth(options))
    parts = list(model.features)
    stages: Stages = {f"c{i + 2}": nn.Sequential(parts[2 * i], parts[2 * i + 1]) for i in range(4)}
    stages["pooled"] = nn.Sequential(model.avgpool, model.classifier[0])
    return assemble(name, model, stages, context, output_stride=options.output_stride, min_size=options.output_stride)


def build_efficientnet(name: str, options: Any, context: BackboneContext) -> Backbone:
    """EfficientNet v1 and v2: [B, C, H / 2^i, W / 2^i], rounded up; c5 ends with the widening 1x1 convolution."""
    model = models.get_model(name, weights=None, **_stochastic_depth(options))
    return assemble(name, model, by_stride(model.features), context, output_stride=options.output_stride)


def build_mobilenet_v2(name: str, options: Any, context: BackboneContext) -> Backbone:
    """MobileNet v2: [B, C, H / 2^i, W / 2^i], rounded up; c5 ends with the widening 1x1 convolution (C = 1280)."""
    model = models.get_model(name, weights=None)
    add_stochastic_depth(model, options.stochastic_depth)
    return assemble(name, model, by_stride(model.features), context, output_stride=options.output_stride)


def build_mobilenet_v3(name: str, options: Any, context: BackboneContext) -> Backbone:
    """MobileNet v3: [B, C, H / 2^i, W / 2^i], rounded up; c5 ends with the widening 1x1 convolution.

    ``pooled`` is [B, 1024 or 1280, 1, 1]: the mean of c5 after the published classifier's first layer.
    """
    model = models.get_model(name, weights=None, dropout=options.dropout)
    add_stochastic_depth(model, options.stochastic_depth)
    stages = by_stride(model.features)
    width = model.classifier[0].out_features
    stages["pooled"] = nn.Sequential(
        model.avgpool, nn.Flatten(), *list(model.classifier)[:-1], nn.Unflatten(1, (width, 1, 1))
    )
    return assemble(name, model, stages, context, output_stride=options.output_stride)


def build_regnet(name: str, options: Any, context: BackboneContext) -> Backbone:
    """RegNet X and Y: c1 the stem, c2 … c5 the four stages: [B, C, H / 2^i, W / 2^i], rounded up."""
    model = models.get_model(name, weights=None)
    add_stochastic_depth(model, options.stochastic_depth)
    stages = by_stride([model.stem, *model.trunk_output])
    return assemble(name, model, stages, context, output_stride=options.output_stride)


def build_vit(name: str, options: Any, context: BackboneContext) -> Backbone:
    """ViT: c1 the embedded patches, c2 … c5 a quarter of the blocks each, all [B, C, H / p, W / p]; p is in the name.

    c5 is after the final layer normalisation; ``pooled``, [B, C, 1, 1], is its class token. Any image size will do
    from one patch on; pixels beyond the last whole patch are not read.
    """
    size = 224
    if context.weights is not None:
        size = published_weights(name, context.weights).meta["min_size"][0]
    model = models.get_model(
        name, weights=None, image_size=size, dropout=options.dropout, attention_dropout=options.attention_dropout
    )
    add_stochastic_depth(model, options.stochastic_depth)
    blocks = list(model.encoder.layers)
    quarter = len(blocks) // 4
    groups = [blocks[i * quarter : (i + 1) * quarter] for i in range(4)]
    groups[-1].append(model.encoder.ln)
    stages: Stages = {"c1": PatchEmbedding(model)}
    stages.update({f"c{i}": nn.Sequential(*group) for i, group in enumerate(groups, start=2)})
    stages["pooled"] = ClassToken()
    grids = [level for level in stages if level != "pooled"]
    backbone = assemble(
        name,
        model,
        stages,
        context,
        kind=ViTBackbone,
        channels=dict.fromkeys(stages, model.hidden_dim),
        strides={**dict.fromkeys(grids, model.patch_size), "pooled": 0},
        channels_last=False,
        min_size=model.patch_size,
    )
    backbone.patch_size, backbone.image_size = model.patch_size, size
    return backbone


def build_swin(name: str, options: Any, context: BackboneContext) -> Backbone:
    """Swin v1 and v2: c2 the 4x4 patches and the first stage, c3 … c5 the others: [B, C, H / 2^i, W / 2^i].

    H / 4 is rounded down and halved rounding up. c5 is after the final layer normalisation.
    """
    model = models.get_model(name, weights=None, dropout=options.dropout, attention_dropout=options.attention_dropout)
    if options.stochastic_depth is not None:
        # The builders fix the rate, so the ramp that they made is scaled.
        blocks = [module for module in model.modules() if isinstance(module, StochasticDepth)]
        scale = options.stochastic_depth / max(block.p for block in blocks)
        for block in blocks:
            block.p *= scale
    parts = list(model.features)
    groups = [parts[2 * i : 2 * i + 2] for i in range(4)]
    groups[-1].append(model.norm)
    stages: Stages = {f"c{i}": nn.Sequential(*group) for i, group in enumerate(groups, start=2)}
    return assemble(name, model, stages, context, kind=SwinBackbone, channels_last=False, min_size=4)


def _stochastic_depth(options: Any) -> dict[str, float]:
    return {} if options.stochastic_depth is None else {"stochastic_depth_prob": options.stochastic_depth}


_BUILDERS: dict[str, Callable[[str, Any, BackboneContext], Backbone]] = {
    "resnet": build_resnet,
    "vgg": build_vgg,
    "inception": build_inception,
    "convnext": build_convnext,
    "efficientnet": build_efficientnet,
    "mobilenet_v2": build_mobilenet_v2,
    "mobilenet_v3": build_mobilenet_v3,
    "regnet": build_regnet,
    "vit": build_vit,
    "swin": build_swin,
}


def __getattr__(name: str) -> Callable[[Any, BackboneContext], Backbone]:
    """The factory of torchvision's builder `name`, called as ``factory(options, context)``."""
    if name not in FAMILY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(_BUILDERS[FAMILY[name]], name)
