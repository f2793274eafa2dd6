"""Regularizers of the features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from ftengine.errors import FtengineError, unknown
from ftengine.protocols import Regularizer, RegularizerContext
from ftengine_regularizers.plugin import FeatureDistillOptions

LEAST = 1e-6
"""The least mean square of the original's features that is divided by."""


class FeatureDistill(Regularizer):
    """``feature_distill``: strength * mean over the levels of mean (f - f0)^2 / mean f0^2.

    f are the features of a level and f0 those that the original backbone, frozen and in eval mode, makes of the same
    images; both means are over batch, channels and positions. So 0 is the original, and 1 is what features of zeros
    would get, whatever the size of a level or the scale of its values. The student's BatchNorm layers use each batch's
    statistics where they train, which alone makes a difference at the start; frozen ones do not.

    Hints of a teacher's features: Romero et al., "FitNets: Hints for Thin Deep Nets", 2015; with the original as its
    own teacher in fine-tuning, weighted by channel: Li et al., "DELTA: Deep Learning Transfer using Feature Map with
    Attention for Convolutional Networks", 2019. The relative form is this module's.
    """

    backbone_only = True

    def __init__(self, options: FeatureDistillOptions, context: RegularizerContext) -> None:
        super().__init__()
        wanted = options.levels or context.levels[-1:]
        wrong = [unknown("level", level, context.levels) for level in wanted if level not in context.levels]
        if wrong:
            offered = ", ".join(context.levels)
            raise FtengineError(f"feature_distill.levels: {'; '.join(wrong)} (the backbone's levels: {offered})")
        self.strength = options.strength
        self.levels = tuple(level for level in context.levels if level in wanted)
        teacher = context.backbone()
        stages = list(teacher.stages)
        for stage in stages[max(map(stages.index, self.levels)) + 1 :]:  # nobody asks what they give
            del teacher.stages[stage]
            teacher.channels.pop(stage, None)
            teacher.strides.pop(stage, None)
        self._teacher = (teacher,)  # in a tuple: neither `train` nor `state_dict` reaches it

    def of_features(self, images: Tensor, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``feature_distill``, a float32 scalar; none while the whole part of the backbone is frozen."""
        if not any(features[level].requires_grad for level in self.levels):
            return {}
        (teacher,) = self._teacher
        with torch.no_grad():
            originals = teacher(images)
        ratios = []
        for level in self.levels:
            original = originals[level].float()
            error = F.mse_loss(features[level].float(), original)
            ratios.append(error / original.square().mean().clamp_min(LEAST))
        return {"feature_distill": self.strength * torch.stack(ratios).mean()}
