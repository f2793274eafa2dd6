"""Which torchvision networks there are, and which published weights each has. Torch is not imported here.

The names are those of torchvision's builders and of the members of its weights enums.
"""

from __future__ import annotations

V1 = "IMAGENET1K_V1"
V2 = "IMAGENET1K_V2"
E2E = "IMAGENET1K_SWAG_E2E_V1"
LINEAR = "IMAGENET1K_SWAG_LINEAR_V1"
FEATURES = "IMAGENET1K_FEATURES"

MODELS: dict[str, dict[str, tuple[str, ...]]] = {
    "resnet": {
        "resnet18": (V1,),
        "resnet34": (V1,),
        "resnet50": (V1, V2),
        "resnet101": (V1, V2),
        "resnet152": (V1, V2),
        "resnext50_32x4d": (V1, V2),
        "resnext101_32x8d": (V1, V2),
        "resnext101_64x4d": (V1,),
        "wide_resnet50_2": (V1, V2),
        "wide_resnet101_2": (V1, V2),
    },
    "vgg": {
        "vgg11": (V1,),
        "vgg11_bn": (V1,),
        "vgg13": (V1,),
        "vgg13_bn": (V1,),
        "vgg16": (V1, FEATURES),
        "vgg16_bn": (V1,),
        "vgg19": (V1,),
        "vgg19_bn": (V1,),
    },
    "inception": {"inception_v3": (V1,)},
    "convnext": {
        "convnext_tiny": (V1,),
        "convnext_small": (V1,),
        "convnext_base": (V1,),
        "convnext_large": (V1,),
    },
    "efficientnet": {
        "efficientnet_b0": (V1,),
        "efficientnet_b1": (V1, V2),
        "efficientnet_b2": (V1,),
        "efficientnet_b3": (V1,),
        "efficientnet_b4": (V1,),
        "efficientnet_b5": (V1,),
        "efficientnet_b6": (V1,),
        "efficientnet_b7": (V1,),
        "efficientnet_v2_s": (V1,),
        "efficientnet_v2_m": (V1,),
        "efficientnet_v2_l": (V1,),
    },
    "mobilenet_v2": {"mobilenet_v2": (V1, V2)},
    "mobilenet_v3": {"mobilenet_v3_small": (V1,), "mobilenet_v3_large": (V1, V2)},
    "regnet": {
        "regnet_x_400mf": (V1, V2),
        "regnet_x_800mf": (V1, V2),
        "regnet_x_1_6gf": (V1, V2),
        "regnet_x_3_2gf": (V1, V2),
        "regnet_x_8gf": (V1, V2),
        "regnet_x_16gf": (V1, V2),
        "regnet_x_32gf": (V1, V2),
        "regnet_y_400mf": (V1, V2),
        "regnet_y_800mf": (V1, V2),
        "regnet_y_1_6gf": (V1, V2),
        "regnet_y_3_2gf": (V1, V2),
        "regnet_y_8gf": (V1, V2),
        "regnet_y_16gf": (V1, V2, E2E, LINEAR),
        "regnet_y_32gf": (V1, V2, E2E, LINEAR),
        "regnet_y_128gf": (E2E, LINEAR),
    },
    "vit": {
        "vit_b_16": (V1, E2E, LINEAR),
        "vit_b_32": (V1,),
        "vit_l_16": (V1, E2E, LINEAR),
        "vit_l_32": (V1,),
        "vit_h_14": (E2E, LINEAR),
    },
    "swin": {
        "swin_t": (V1,),
        "swin_s": (V1,),
        "swin_b": (V1,),
        "swin_v2_t": (V1,),
        "swin_v2_s": (V1,),
        "swin_v2_b": (V1,),
    },
}
"""Family -> builder name -> names of its published weights."""

FAMILY: dict[str, str] = {name: family for family, models in MODELS.items() for name in models}
"""Builder name -> family."""


def default_weights(name: str) -> str:
    """The weights that torchvision's ``DEFAULT`` stands for: the second training recipe's where there is one."""
    weights = MODELS[FAMILY[name]][name]
    return V2 if V2 in weights else weights[0]
