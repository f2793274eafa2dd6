"""Published segmentation models: where they are, and the names of their tensors."""

from __future__ import annotations

from torch import nn
from torchvision import models

from ftengine.errors import WeightsError, name_list, nearest
from ftengine.protocols import HeadContext, PublishedModel

BACKBONES = ("resnet50", "resnet101")
WEIGHTS = {"coco": "COCO_WITH_VOC_LABELS_V1"}
"""A config's names of published weights, and torchvision's."""

PREDICTORS = ("classifier.4.", "aux_classifier.4.")
"""What the names of the layers begin with whose outputs are the classes."""


def published(name: str, head: nn.Module, context: HeadContext) -> PublishedModel | None:
    """Torchvision's model of the head `name` and the context's backbone; None where no weights are asked for.

    `head` has torchvision's own names, so its tensors are found under them; an auxiliary classifier that it does
    not have is left in the file. Raises WeightsError for a backbone with which nothing was published.
    """
    if context.weights is None:
        return None
    if context.backbone not in BACKBONES:
        near = nearest(context.backbone, BACKBONES)
        raise WeightsError(
            f"head.weights: {name} has the weights {context.weights} with the backbones {name_list(BACKBONES)}, "
            f"not with {context.backbone!r}; " + (f"did you mean {near!r}?" if near else "leave head.weights out")
        )
    names = tuple(head.state_dict())
    enum = models.get_model_weights(f"{name}_{context.backbone}")
    return PublishedModel(
        url=enum[WEIGHTS[context.weights]].url,
        names={own: own for own in names},
        backbone="backbone.",
        replaced=tuple(own for own in names if own.startswith(PREDICTORS)),
        discarded=() if any(own.startswith("aux_classifier.") for own in names) else ("aux_classifier.*",),
    )
