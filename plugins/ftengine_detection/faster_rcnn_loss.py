"""The four terms of Faster R-CNN's loss, from what its head sampled."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder, _box_loss

from ftengine.protocols import Batch, Loss, LossContext, Output
from ftengine_detection.faster_rcnn import BOX_CODER, PROPOSAL_CODER
from ftengine_detection.options import BoxForm, FasterRcnnLossOptions

BETA = {"beta": 1 / 9}
"""Where smooth L1 becomes linear."""


class FasterRcnnLoss(Loss):
    """``objectness``, ``rpn_box``, ``classifier`` and ``box``, each times its weight.

    Reads what :class:`ftengine_detection.faster_rcnn.FasterRcnn` returns in training. The terms are means over the
    sampled anchors and proposals; of the boxes, too, as in torchvision: the sum over the positive ones, by the number
    of all samples. Where there are none a term is 0.

    Box forms: smooth L1 of the encoded offsets (Girshick, "Fast R-CNN", 2015); 1 - GIoU (Rezatofighi et al. 2019) and
    CIoU (Zheng et al. 2020) of the decoded boxes. Focal loss: Lin et al. 2017, of the softmax.
    """

    def __init__(self, options: FasterRcnnLossOptions, context: LossContext) -> None:
        super().__init__()
        self.options = options

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        options = self.options
        anchors, proposals = output["rpn_labels"].numel(), output["roi_labels"].numel()
        rpn = F.binary_cross_entropy_with_logits(output["rpn_logits"], output["rpn_labels"], reduction="sum")
        return {
            "objectness": options.objectness_weight * _mean(rpn, anchors),
            "rpn_box": options.rpn_box_weight * _mean(_boxes(options.rpn_box, PROPOSAL_CODER, output, "rpn"), anchors),
            "classifier": options.classifier_weight * _mean(self._classifier(output), proposals),
            "box": options.box_weight * _mean(_boxes(options.box, BOX_CODER, output, "roi"), proposals),
        }

    def _classifier(self, output: Output) -> Tensor:
        each = F.cross_entropy(output["roi_logits"], output["roi_labels"], reduction="none")
        if self.options.classifier == "focal":
            # The floor keeps the power's gradient finite for gamma < 1 where p rounds to 1.
            each = each * (-torch.expm1(-each)).clamp_min(1e-8) ** self.options.focal_gamma
        return each.sum()


def _boxes(form: BoxForm, coder: BoxCoder, output: Output, stage: str) -> Tensor:
    """The sum over the positive samples of `stage`."""
    starts = output["rpn_anchors" if stage == "rpn" else "roi_proposals"]
    total: Tensor = _box_loss(form, coder, starts, output[f"{stage}_boxes"], output[f"{stage}_deltas"], BETA)
    return total


def _mean(total: Tensor, count: int) -> Tensor:
    return total / max(count, 1)
