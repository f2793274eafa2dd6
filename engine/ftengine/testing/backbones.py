"""Checks of backbones, first half: what they state of their levels, and what their stages make of images."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from ftengine.build import make
from ftengine.errors import FtengineError
from ftengine.protocols import Backbone, BackboneContext
from ftengine.specs import BackboneSpec
from ftengine.testing.checks import Nonconformity, NotApplicable, check
from ftengine.testing.randomness import FewNumbers, global_seeds
from ftengine.testing.subject import Subject

LEAST_SIDE = 32
"""Pixels a side of the smaller images, so that a level of a small stride has more than a few places."""

EDGE = 5
"""By how many places a side of a level may fall short of H / stride: convolutions without padding lose its edge."""

ROUNDING = 1e-4
"""How far features may be apart where the same sums are added up in another order, relative to the level's largest.

float32 holds seven digits. The networks of torchvision lose one or two of them; a layout that is read wrongly, or an
image that sees the others, is off by some percent at least.
"""

SHUT = 1e-3
"""A parameter all of whose values are smaller lets nothing through; layer scales begin at 1e-4 or less."""

ALL = BackboneContext()


def build(subject: Subject, seed: int = 0, context: BackboneContext = ALL) -> Backbone:
    """A new backbone in eval mode, random by `seed`."""
    with global_seeds(seed):
        return make(subject.part, context, Backbone).eval()


@functools.lru_cache(maxsize=1)
def built(subject: Subject) -> Backbone:
    """The backbone with all its levels, in eval mode. A check leaves it as it is, or uses a copy.

    Branches that begin at next to nothing (a normalisation's weight of 0, a layer scale of 1e-6) have been opened, so
    that what is wrong in them shows. Only the latest is kept, since those of a whole plugin need not fit into memory.
    """
    backbone, generator = build(subject), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad and bool((parameter.abs() < SHUT).all()):
                if parameter.numel() == max(parameter.shape, default=1):  # a value for each channel
                    parameter.uniform_(0.1, 0.3, generator=generator)
                else:
                    parameter.normal_(std=0.02, generator=generator)
    return backbone


def declared(subject: Subject) -> BackboneSpec:
    """What the plugin says of it."""
    return cast(BackboneSpec, subject.component.spec)


def sizes(backbone: Backbone) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two sizes, (height, width), which every stride divides: a square, and a larger one.

    Where no level has a grid, the least size stands for the stride: of networks of patches, it is a patch.
    """
    grids = [stride for stride in backbone.strides.values() if stride]
    step = math.lcm(*grids) if grids else max(backbone.min_size, 1)
    side = step * max(2, -(-max(backbone.min_size, LEAST_SIDE) // step))
    return (side, side), (side + step, side + 2 * step)


def images(backbone: Backbone, size: tuple[int, int], count: int, frames: int | None = None) -> Tensor:
    """`count` different images of noise, float [count, 3, *size], or clips of `frames`; always the same ones."""
    return torch.randn(backbone.input_shape(size, count, frames), generator=torch.Generator().manual_seed(0))


def batch(subject: Subject) -> Tensor:
    """Two images of the small run's size, which a network that is built for one size takes as well."""
    backbone, plan = built(subject), subject.plan
    size = plan.config.image.size
    if size is None or min(size) < backbone.min_size:
        size = sizes(backbone)[0]
    return images(backbone, size, 2, plan.frames)


def features_of(backbone: Backbone, inputs: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Features without gradients; the process's generators begin at `seed`."""
    with torch.no_grad(), global_seeds(seed):
        return backbone(inputs)  # type: ignore[no-any-return]


def must_equal(
    expected: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], tolerance: float = 0.0
) -> None:
    """Raises Nonconformity where a level is apart by more than `tolerance` times its largest absolute value."""
    for level, feature in wanted.items():
        if level not in found:
            raise Nonconformity(expected, f"no {level}")
        own = found[level]
        if own.shape != feature.shape:
            raise Nonconformity(expected, f"{level} as {list(own.shape)}, not {list(feature.shape)}")
        apart, largest = float((own - feature).abs().max()), float(feature.abs().max())
        if not apart <= tolerance * largest:
            raise Nonconformity(expected, f"{level} apart by {apart:.3g}, where its largest value is {largest:.3g}")


def in_order(names: object) -> str:
    """Names for a message, in the order in which they stand."""
    return ", ".join(map(str, names)) or "none"  # type: ignore[call-overload]


@check("backbone")
def levels_as_declared(subject: Subject) -> None:
    """The levels that it returns are stages, in the order of the spec; one that it lacks is refused by its name."""
    backbone, offered = built(subject), declared(subject).levels
    levels = backbone.levels
    if tuple(backbone.strides) != levels:
        raise Nonconformity(f"strides of {in_order(levels)}, as of channels", f"of {in_order(backbone.strides)}")
    if not levels or tuple(name for name in backbone.stages if name in levels) != levels:
        raise Nonconformity(f"stages called {in_order(levels)}, in this order", in_order(backbone.stages))
    if tuple(name for name in offered if name in levels) != levels:
        raise Nonconformity(f"levels of the spec, in its order ({in_order(offered)})", in_order(levels))
    without_grid = [level for level, stride in backbone.strides.items() if stride == 0]
    if without_grid != [level for level in levels if level == "pooled"]:
        raise Nonconformity("stride 0 for `pooled` and for no other level", str(backbone.strides))
    returned = tuple(features_of(backbone, batch(subject)))
    if returned != levels:
        raise Nonconformity(f"that forward returns {in_order(levels)}", in_order(returned))
    for level in offered:
        if level not in levels:
            _must_refuse(subject, level)


def _must_refuse(subject: Subject, level: str) -> None:
    """Which levels there are may depend on the options; who asks for one that is not there must be told."""
    expected = f"the level {level}, which the spec declares, or an FtengineError that names it when a head needs it"
    try:
        made = build(subject, context=BackboneContext(levels=(level,)))
    except FtengineError as error:
        # Another exception of the factory has become one on its way, and is its cause.
        if level in str(error) and (error.__cause__ is None or isinstance(error.__cause__, FtengineError)):
            return
        raise Nonconformity(expected, str(error)) from None
    raise Nonconformity(expected, f"a backbone with {in_order(made.levels)}")


@check("backbone")
def channels_and_strides(subject: Subject) -> None:
    """Each level has the channels and the stride that it states, at two image sizes and for a single image."""
    backbone = built(subject)
    square, larger = sizes(backbone)
    cases = [(square, images(backbone, square, 2)), (larger, images(backbone, larger, 1))]
    results = [(size, inputs, features_of(backbone, inputs)) for size, inputs in cases]
    for level, channels in backbone.channels.items():
        stride = backbone.strides[level]
        for size, inputs, features in results:
            own = features[level]
            grid = [1, 1] if stride == 0 else [-(-side // stride) for side in size]
            shape = [len(inputs), channels, *[1 if stride == 0 else "T"] * (inputs.ndim - 4), *grid]
            short = [wanted - side for wanted, side in zip(grid, own.shape[-2:], strict=True)]
            fits = own.shape[:2] == (len(inputs), channels) and own.ndim == inputs.ndim
            if not fits or own.dtype != torch.float32 or not all(0 <= s <= (EDGE if stride else 0) for s in short):
                raise Nonconformity(
                    f"{level} (stride {stride}) as float32 [{in_order(shape)}] for images of {_pixels(size)}",
                    f"{str(own.dtype).removeprefix('torch.')} {list(own.shape)}",
                )
        if stride:
            # What the edges take away is the same at both sizes, so that the growth tells the stride.
            before, after = (list(features[level].shape[-2:]) for _, _, features in results)
            wanted = [(b - a) // stride for a, b in zip(square, larger, strict=True)]
            grown = [b - a for a, b in zip(before, after, strict=True)]
            if grown != wanted:
                raise Nonconformity(
                    f"{level} (stride {stride}) larger by {wanted} for images of {_pixels(larger)} than of "
                    f"{_pixels(square)}",
                    f"larger by {grown}",
                )


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


@check("backbone")
def least_size(subject: Subject) -> None:
    """Images of `min_size` pixels a side go through, and leave something of each level."""
    backbone = built(subject)
    side = backbone.min_size
    expected = f"features of an image of {side}x{side} pixels, the least that it takes (min_size)"
    try:
        features = features_of(backbone, images(backbone, (side, side), 1))
    except Exception as error:  # whatever its layers raise
        raise Nonconformity(expected, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
    empty = [level for level, feature in features.items() if not feature.numel()]
    if empty:
        raise Nonconformity(expected, f"nothing in {in_order(empty)}")


@check("backbone")
def stages_compose(subject: Subject) -> None:
    """The stages, run one after the other and read by `feature`, give what `forward` gives."""
    backbone = built(subject)
    whole, parts = features_of(backbone, batch(subject)), {}
    state = inputs = batch(subject)
    with torch.no_grad():
        for name, stage in backbone.stages.items():
            state = stage(state)
            if name in backbone.channels:
                size = (inputs.shape[-2], inputs.shape[-1])
                # A copy: the next stage must not write into what this one has returned.
                parts[name] = backbone.feature(name, state, size).clone()
    must_equal("from forward what the stages give one after the other", whole, parts)


@check("backbone")
def later_stages_left_out(subject: Subject) -> None:
    """Built for the heads of an earlier level, it has the same names, levels and features up to there."""
    backbone = built(subject)
    if len(backbone.levels) == 1:
        raise NotApplicable(f"{backbone.levels[0]} is its only level")
    kept = backbone.levels[: (len(backbone.levels) + 1) // 2]
    asked = f"when built for {kept[-1]}"
    with FewNumbers():  # it is given the whole's values
        part = build(subject, 1, BackboneContext(levels=kept[-1:]))
    if part.levels[: len(kept)] != kept:
        raise Nonconformity(f"the levels {in_order(kept)} {asked}: only later ones are left out", in_order(part.levels))
    for what in ("channels", "strides"):
        ours, theirs = ([getattr(one, what)[level] for level in kept] for one in (part, backbone))
        if ours != theirs:
            raise Nonconformity(f"{what} of {theirs} {asked}, as of the whole", f"{ours}")
    whole, own = backbone.state_dict(), part.state_dict()
    others = [name for name, tensor in own.items() if name not in whole or whole[name].shape != tensor.shape]
    if others:
        raise Nonconformity(f"names and shapes of the whole's state dict {asked}", f"others: {in_order(others[:5])}")
    part.load_state_dict({name: whole[name] for name in own})
    inputs = batch(subject)
    features = features_of(backbone, inputs)
    wanted = {level: features[level] for level in kept}
    must_equal(f"the features of the whole {asked}", features_of(part, inputs), wanted)


@check("backbone")
def eval_features(subject: Subject) -> None:
    """In eval mode an image has the same features each time and beside any others, and is left as it was."""
    backbone = built(subject)
    inputs = batch(subject)
    before = inputs.clone()
    first = features_of(backbone, inputs, seed=0)
    if not torch.equal(inputs, before):
        raise Nonconformity("images that are left as they were", "that forward writes into them")
    again = features_of(backbone, inputs, seed=1)
    must_equal("the very same features of the same images in eval mode", again, first)
    alone = features_of(backbone, inputs[:1])
    expected = f"features that do not depend on the other images, but for {ROUNDING:g} of a level's largest value"
    must_equal(expected, alone, {level: feature[:1] for level, feature in first.items()}, ROUNDING)


@check("backbone")
def finite_features(subject: Subject) -> None:
    """Features are finite in float32 and under bfloat16 autocast, those of a black image as well."""
    backbone = built(subject)
    inputs = batch(subject)
    inputs[1] = 0
    for precision, autocast in (("float32", False), ("bfloat16 autocast", True)):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            features = features_of(backbone, inputs)
        for level, feature in features.items():
            wrong = int((~feature.isfinite()).sum())
            if wrong:
                raise Nonconformity(f"finite features in {precision}", f"{wrong} of {feature.numel()} not, in {level}")


@check("backbone")
def channels_last_features(subject: Subject) -> None:
    """In the memory format channels_last, where it declares that, features are the same but for rounding."""
    backbone = built(subject)
    if not backbone.channels_last:
        raise NotApplicable("it says channels_last=False")
    inputs, laid_out = batch(subject), copy.deepcopy(backbone)
    flat, deep = torch.channels_last, torch.channels_last_3d
    for module in laid_out.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.to(memory_format=flat)
        elif isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.to(memory_format=deep)
    found = features_of(laid_out, inputs.to(memory_format=flat if inputs.ndim == 4 else deep))
    expected = f"the same features in channels_last, but for {ROUNDING:g} of a level's largest value"
    must_equal(expected, found, features_of(backbone, inputs), ROUNDING)
