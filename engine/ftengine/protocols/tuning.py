"""What is added to a loss or a backbone for fine-tuning: regularizers and adapters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ftengine.protocols.model import Backbone


@dataclass(frozen=True)
class RegularizerContext:
    """What the run started from.

    `start`: the value of every parameter before the first step, on the CPU, under the names that `of_weights` uses.
    `backbone`: makes a new copy of the backbone as it was then, in eval mode and without gradients. `levels`: the
    backbone's levels, in order. `adapted`: an adapter's parameters train, not the backbone's own.
    """

    start: Mapping[str, Tensor]
    backbone: Callable[[], Backbone]
    levels: tuple[str, ...]
    adapted: bool = False


class Regularizer(nn.Module):
    """Terms, each a scalar, that are added to the loss of a training step and logged by their names.

    A subclass overrides `of_weights`, `of_features` or both. It is moved to the run's device, and is not part of the
    model: it must follow from its options and the context alone::

        class L2(Regularizer):
            def of_weights(self, parameters):
                return {"l2": 1e-4 * sum(p.square().sum() for p in parameters.values())}

    `backbone_only`: it does nothing where the backbone does not train, and is then refused.
    """

    backbone_only = False

    def of_weights(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Terms of the backbone's and heads' parameters that train now (there are some): once a step, in float32.

        Their names are ``<stage>.<name within it>``, ``head.<name>`` (one task) or ``head.<task>.<name>``.
        """
        return {}

    def of_features(self, images: Tensor, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Terms of one batch: normalised `images`, float [B, 3, H, W], and their features, level -> [B, C, H', W'].

        Means over the batch, as a loss's terms are. Of clips [B, 3, T, H, W] and [B, C, T', H', W'].
        """
        return {}


@dataclass(frozen=True)
class AdapterContext:
    """`images`: a batch of zeros of the run's size, float [1, 3, H, W] or [1, 3, T, H, W], to try the backbone with."""

    images: Tensor


class Adapter(ABC):
    """New parameters inside a backbone that train in place of its own.

    `apply` comes after the backbone's weights are loaded, `merge` before they are exported.
    """

    @abstractmethod
    def apply(self, backbone: Backbone) -> None:
        """Replace modules within ``backbone.stages``, in place; what the backbone gives must not change by it.

        Parameters that are not to train get ``requires_grad=False``. Raises FtengineError if there is nothing to adapt.
        """

    @abstractmethod
    def merge(self, backbone: Backbone) -> None:
        """Fold the new parameters into the backbone's own, in place: modules and names are those before `apply`."""
