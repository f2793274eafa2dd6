"""timm's models cut into ordered stages.

A model is cut where each of its submodules takes exactly what the one before it returned, which is found out by
tracing it once; nothing is assumed from the order in which they were registered. What comes before the first such
submodule (embeddings, as a rule) is run by a copy of the model that has lost the rest, and so is its head.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ftengine.errors import FtengineError, name_list
from ftengine.protocols import Backbone, BackboneContext
from ftengine_timm.cutting import Cut, cut
from ftengine_timm.names import Source, resolve
from ftengine_timm.plugin import RATES, TimmOptions
from ftengine_timm.tracing import random_calls

Size = tuple[int, int]


def build(options: TimmOptions, context: BackboneContext) -> Backbone:
    """The model named in `options`, up to the last level that `context` needs.

    A level is [B, C, H / stride, W / stride], the same as timm's own features (that is, before a final
    normalisation). Level ``ci`` has stride 2^i, but in a model with one grid of patches c1 is the embedding and c2 …
    c5 are a quarter of the blocks each. ``pooled``, [B, C, 1, 1], is what timm's own classifier reads. A model that
    cannot be cut has two stages only: the last level, and ``pooled``.

    Raises FtengineError for a model or an option that timm does not have, or a rate that changes none of the stages,
    and WeightsError for unknown weights.
    """
    source = resolve(options.model, context.weights)
    model, arguments = create(source, options)
    published = model.state_dict(keep_vars=True)
    # Of several names of one tensor the first counts.
    names = {id(tensor): key for key, tensor in reversed(published.items())}
    size = image_size(model, arguments)
    parts = cut(model, size, dilated=options.output_stride in (8, 16))
    if options.output_stride and max(parts.strides.values()) != options.output_stride:
        raise FtengineError(f"backbone timm: {source.architecture} has no output_stride; leave the option out")
    for level in context.levels or ():
        if level not in parts.stages:
            raise FtengineError(
                f"backbone timm: {source.architecture} offers the levels {name_list(parts.stages)}, not {level!r}"
            )
    levels = list(parts.stages)
    if context.levels is not None:
        levels = levels[: max(levels.index(level) for level in context.levels) + 1]
    stages = {level: parts.stages[level] for level in levels}
    _check_rates(source.architecture, arguments, stages, size)
    ours = nn.ModuleDict(stages).state_dict(prefix="stages.", keep_vars=True)
    used = {key: names[id(tensor)] for key, tensor in ours.items()}
    return TimmBackbone(
        stages,
        {level: parts.channels[level] for level in levels},
        {level: parts.strides[level] for level in levels},
        cut_parts=parts,
        rebuild=(source.architecture, arguments),
        mean=source.config.mean,
        std=source.config.std,
        url=source.url,
        weights_file=source.file,
        published=used,
        discarded=tuple(key for key in published if key not in set(used.values())),
        channels_last=set(parts.formats.values()) == {"NCHW"},
        min_size=max(parts.strides.values()),
    )


class TimmBackbone(Backbone):
    """Stages hand on what timm's modules do: maps, channels last or first, or tokens."""

    def __init__(self, *args: Any, cut_parts: Cut, rebuild: tuple[str, dict[str, Any]], **arguments: Any) -> None:
        super().__init__(*args, **arguments)
        self._formats = cut_parts.formats
        self._prefix = cut_parts.prefix
        self._rebuild = rebuild

    def feature(self, name: str, state: Any, size: tuple[int, int]) -> Tensor:
        """What stage `name` returned, as [B, C, H / stride, W / stride]; ``pooled`` as [B, C, 1, 1]."""
        match self._formats.get(name, "NCHW"):
            case "pair":
                return state[1]
            case "NHWC":
                return state.permute(0, 3, 1, 2)
            case "NLC":
                stride = self.strides[name]
                grid = (size[0] // stride, size[1] // stride)
                return state[:, self._prefix :].transpose(1, 2).unflatten(2, grid)
        return state

    def adapt(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A published file's tensors under the names and in the shapes of today's timm.

        Files that fit are returned as they are. Others (the names of an original implementation, position
        embeddings of another image size) go through the conversion that timm has for the model, if it has one.
        """
        ours = self.state_dict()
        shapes = {self.published[key]: tensor.shape for key, tensor in ours.items()}
        if all(name in tensors and tensors[name].shape == shape for name, shape in shapes.items()):
            return tensors
        architecture, arguments = self._rebuild
        model = timm.create_model(architecture, **arguments)
        convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        return tensors if convert is None else convert(dict(tensors), model)


def create(source: Source, options: TimmOptions) -> tuple[nn.Module, dict[str, Any]]:
    """timm's model without weights, and the arguments it was made with.

    Transformers are asked to take images of any size, where they can. Raises FtengineError, naming the option, where
    the model does not take one.
    """
    chosen = {
        name: value for name in (*RATES, "output_stride", "img_size") if (value := getattr(options, name)) is not None
    }
    if source.tag:
        chosen["pretrained_cfg"] = source.tag
    # Each family has its own word for "any size", and refuses the others'.
    for extra in ({"strict_img_size": False}, {"dynamic_img_size": True}, {}):
        arguments = {**chosen, **extra}
        try:
            return timm.create_model(source.architecture, **arguments), arguments
        except TypeError as error:
            refused = [name for name in arguments if f"'{name}'" in str(error)]
            if not refused or "unexpected keyword argument" not in str(error):
                raise
            if not set(refused) <= set(extra):
                name = next(name for name in refused if name in chosen)
                raise FtengineError(
                    f"backbone timm: {source.architecture} has no {name}; leave the option out"
                ) from error
    raise AssertionError("the last attempt has no extra arguments that a model could refuse")


def _check_rates(architecture: str, arguments: Mapping[str, Any], stages: Mapping[str, nn.Module], size: Size) -> None:
    """Raises FtengineError for a rate that the model takes, and that nothing in `stages` draws random numbers for.

    There are two reasons: the model has the layer behind what a head here reads, or it never uses it.
    """
    given = [name for name in RATES if arguments.get(name)]
    if not given:
        return
    drawn = random_calls(stages.values(), size)
    for name in given:
        with torch.random.fork_rng(devices=[]):  # new layers of the heads begin as they would without the option
            model = timm.create_model(architecture, **{**arguments, name: 0.0})
        without = cut(model, size, dilated=arguments.get("output_stride") in (8, 16))
        if random_calls([without.stages[level] for level in stages], size) == drawn:
            raise FtengineError(
                f"backbone timm: {name} of {architecture} does nothing in the levels in use, {name_list(stages)}; "
                "leave the option out, or use the head's own dropout"
            )


def image_size(model: nn.Module, arguments: dict[str, Any]) -> tuple[int, int]:
    """(height, width) of the images that `model` was built for."""
    size = arguments.get("img_size") or model.pretrained_cfg["input_size"][-2:]
    return (size, size) if isinstance(size, int) else (size[0], size[1])
