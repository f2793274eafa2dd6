"""Regularizers of the weights: sums over the parameters that train, which the engine asks for in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from ftengine.errors import FtengineError
from ftengine.protocols import Regularizer, RegularizerContext
from ftengine_regularizers.plugin import L1Options, L2SpOptions


class L2Sp(Regularizer):
    """``l2_sp``: backbone / 2 * ||w - w0||^2 + head / 2 * ||v||^2 for what trains in the backbone, w, and heads, v.

    w0 are the weights that the run started from (SP: the starting point). Li, Grandvalet and Davoine, "Explicit
    Inductive Bias for Transfer Learning with Convolutional Networks", 2018. It takes the place of weight decay: the
    optimizer's should be 0. A head counts as new, as in the paper: it is kept small even where its weights are
    published ones. FtengineError where the backbone has an adapter.
    """

    def __init__(self, options: L2SpOptions, context: RegularizerContext) -> None:
        super().__init__()
        if context.adapted:
            raise FtengineError(
                "regularizer l2_sp: with an adapter the backbone's own weights do not train, so that they cannot leave "
                "their start; leave l2_sp out (the optimizer's weight_decay keeps the adapter's weights small, "
                "feature_distill the features near the original's), or leave the adapter out"
            )
        self.backbone = options.backbone
        self.head = options.head
        self.backbone_only = not options.head
        if self.backbone:
            for name, value in context.start.items():
                if not _of_head(name):
                    self.register_buffer(_buffer(name), value.float(), persistent=False)

    def of_weights(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``l2_sp``, a scalar; none while nothing trains that has a strength."""
        sums = []
        for name, parameter in parameters.items():
            if _of_head(name):
                if self.head:
                    sums.append(self.head / 2 * parameter.float().square().sum())
            elif self.backbone:
                start = self.get_buffer(_buffer(name))
                sums.append(self.backbone / 2 * F.mse_loss(parameter.float(), start, reduction="sum"))
        return _total("l2_sp", sums)


class L1(Regularizer):
    """``l1``: strength * sum |w| over the parameters that train, of the backbone, the heads or both.

    Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996.
    """

    def __init__(self, options: L1Options, context: RegularizerContext) -> None:
        super().__init__()
        self.strength = options.strength
        self.backbone_only = options.part == "backbone"
        self.parts = ("backbone", "head") if options.part == "all" else (options.part,)

    def of_weights(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``l1``, a scalar; none while nothing of the part trains."""
        chosen = [p for name, p in parameters.items() if ("head" if _of_head(name) else "backbone") in self.parts]
        return _total("l1", [self.strength * parameter.float().abs().sum() for parameter in chosen])


def _of_head(name: str) -> bool:
    return name.startswith("head.")


def _buffer(name: str) -> str:
    """A parameter's name as a buffer's, which cannot have a dot in it."""
    return name.replace(".", "/")


def _total(name: str, sums: Iterable[Tensor]) -> dict[str, Tensor]:
    found = list(sums)
    return {name: torch.stack(found).sum()} if found else {}
