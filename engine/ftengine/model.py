"""The shared backbone with its heads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ftengine.protocols import Backbone, Batch, Frame, Head, Loss, Output, Targets
from ftengine.quarantine import BadSample
from ftengine.windows import Sliding

NORMS = (
    nn.modules.batchnorm._NormBase,  # BatchNorm and InstanceNorm, all dimensions, synchronised or not
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


@dataclass
class StreamBatch:
    """One batch of a stream: `images` uint8 [B, H, W, 3]; `targets` of each task, in their pixels.

    Images that are clips are uint8 [B, T, H, W, 3].

    `ids`: the samples' ids; `frames`: where each image lies; `truths`: the targets of each task in the pixels of the
    original images, for metrics: these stay on the CPU. `indices`: which samples of the split they are, one each;
    `bad`: those that could not be read on the way.
    """

    images: Tensor
    targets: dict[str, Targets]
    ids: list[str]
    frames: list[Frame]
    truths: dict[str, Targets] = field(default_factory=dict)
    indices: list[int] = field(default_factory=list)
    bad: list[BadSample] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def map(self, change: Callable[[Tensor], Tensor]) -> StreamBatch:
        """The same batch with every tensor changed."""

        def each(value: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
            return [change(tensor) for tensor in value] if isinstance(value, list) else change(value)

        targets = {task: {name: each(value) for name, value in own.items()} for task, own in self.targets.items()}
        return replace(self, images=change(self.images), targets=targets)

    def to(self, device: torch.device) -> StreamBatch:
        """On `device`, numbers of double precision in single; copies from pinned memory do not wait."""

        def move(tensor: Tensor) -> Tensor:
            dtype = torch.float32 if tensor.dtype == torch.float64 else tensor.dtype
            return tensor.to(device, dtype, non_blocking=True)

        return self.map(move)

    def pin_memory(self) -> StreamBatch:
        """In pinned memory; the loader calls this."""
        return self.map(lambda tensor: tensor.pin_memory())

    def __getstate__(self) -> dict[str, Any]:
        """On the way from a worker a tensor holds file descriptors, of which a process has about a thousand.

        So a list of tensors goes as one.
        """
        return _with_targets(vars(self), _packed)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(_with_targets(state, _unpacked))

    def split(self, parts: int) -> Iterator[StreamBatch]:
        """`parts` batches, in order, whose sizes differ by one at most; fewer if there are fewer samples."""
        parts = min(parts, len(self))
        edges = [len(self) * part // parts for part in range(parts + 1)]
        for start, end in itertools.pairwise(edges):
            chosen = slice(start, end)
            targets = {task: {name: value[chosen] for name, value in own.items()} for task, own in self.targets.items()}
            ids, frames, indices = self.ids[chosen], self.frames[chosen], self.indices[chosen]
            yield StreamBatch(self.images[chosen], targets, ids, frames, indices=indices)


@dataclass(frozen=True)
class _Packed:
    """Tensors of one type, and of any shapes, one after another in `values`."""

    values: Tensor
    shapes: list[torch.Size]


def _with_targets(state: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """A batch's attributes with all targets and truths changed; where these are the same, they stay so."""
    made: dict[int, dict[str, Any]] = {}

    def each(own: dict[str, Any]) -> dict[str, Any]:
        if id(own) not in made:
            made[id(own)] = {name: change(value) for name, value in own.items()}
        return made[id(own)]

    return dict(state) | {key: {task: each(own) for task, own in state[key].items()} for key in ("targets", "truths")}


def _packed(value: Any) -> Any:
    if not isinstance(value, list) or len({tensor.dtype for tensor in value}) != 1:
        return value
    return _Packed(torch.cat([tensor.flatten() for tensor in value]), [tensor.shape for tensor in value])


def _unpacked(value: Any) -> Any:
    if not isinstance(value, _Packed):
        return value
    parts = value.values.split([shape.numel() for shape in value.shapes])  # type: ignore[no-untyped-call]
    return [part.view(shape) for part, shape in zip(parts, value.shapes, strict=True)]


@dataclass
class Result:
    """What the model makes of one task of a batch."""

    output: Output
    batch: Batch


@dataclass
class Forward:
    """One pass: each task's result, the normalised `images`, float [B, 3, H, W], and what the backbone made of them.

    `features`, level -> [B, C, H', W'], are empty where large images were seen in windows.
    """

    results: dict[str, Result]
    images: Tensor
    features: dict[str, Tensor]


class Model(nn.Module):
    """Backbone, heads and losses; images arrive as uint8 and are normalised here, on the device.

    The losses are part of it so that what they hold (class weights, or weights that are learned) moves, trains and
    is saved with the rest.

    ``model.frozen_norms`` are normalisation modules that stay in eval mode whatever ``.train()`` says;
    ``model.memory_format`` is that of the normalised images, which convolutions hand on; ``model.fixed`` names the
    stages' parameters that never train, since the backbone came with them frozen (a fixed table of positions).
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: Mapping[str, Head],
        losses: Mapping[str, Sequence[Loss]],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)
        self.losses = nn.ModuleDict({task: nn.ModuleList(own) for task, own in losses.items()})
        channels = (1, 3, 1, 1) if backbone.clip is None else (1, 3, 1, 1, 1)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(channels))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(channels))
        self.frozen_norms: list[nn.Module] = []
        self.single_position_norms: list[nn.Module] = []  # BatchNorms that see one value a channel and image
        self.memory_format = torch.contiguous_format
        self.sliding: Sliding | None = None
        named = backbone.stages.named_parameters(remove_duplicate=False)
        self.fixed = {name for name, parameter in named if not parameter.requires_grad}

    def normalise(self, batch: StreamBatch) -> Tensor:
        """uint8 [B, H, W, 3] in 0..255 to float32 [B, 3, H, W] with the weights' mean and deviation.

        Of clips uint8 [B, T, H, W, 3] to float32 [B, 3, T, H, W].

        What fills the batch up beyond an image becomes 0, as a convolution's own padding is.
        """
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        floats = batch.images.movedim(-1, 1).to(torch.float32, memory_format=self.memory_format, copy=True)
        floats.sub_(mean * 255).div_(std * 255)
        for image, frame in zip(floats, batch.frames, strict=True):
            height, width = frame.size
            if (height, width) != tuple(image.shape[-2:]):
                image[..., height:, :].zero_()
                image[..., width:].zero_()
        return floats

    def forward(self, batch: StreamBatch, tasks: Sequence[str]) -> Forward:
        """Run the backbone once, and each of `tasks`' heads on its features; large images in windows, in eval mode."""
        images = self.normalise(batch)
        views = {task: Batch(images, batch.targets.get(task, {}), batch.ids, batch.frames) for task in tasks}
        size = (images.shape[-2], images.shape[-1])
        if self.sliding is not None and not self.training and self.sliding.needed(size):
            outputs, features = self.sliding.run(self, images, batch.ids, tasks), {}
        else:
            features = self.backbone(images)
            outputs = {task: self.heads[task](features, views[task]) for task in tasks}
        return Forward({task: Result(outputs[task], views[task]) for task in tasks}, images, features)

    def train(self, mode: bool = True) -> Model:
        """As in torch, but normalisation layers of what is frozen stay in eval mode."""
        super().train(mode)
        for norm in self.frozen_norms:
            norm.eval()
        return self

    def stage_modules(self) -> dict[str, nn.Module]:
        """Each backbone stage, each head as ``head`` (one task) or ``head.<task>``, each loss that has parameters."""
        modules = dict(self.backbone.stages.items())
        for kind, members in (("head", self.heads), ("loss", self.losses)):
            for task, module in members.items():
                if kind == "head" or any(True for _ in module.parameters()):
                    modules[kind if len(self.heads) == 1 else f"{kind}.{task}"] = module
        return modules

    def stage_parameters(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each of `stage_modules`, all of the model's exactly once: shared ones are the first's."""
        seen: set[int] = set()
        stages: dict[str, list[nn.Parameter]] = {}
        for name, module in self.stage_modules().items():
            stages[name] = [parameter for parameter in module.parameters() if id(parameter) not in seen]
            seen.update(map(id, stages[name]))
        return stages

    def parameter_names(self) -> dict[str, nn.Parameter]:
        """Every parameter as `stage_parameters` counts it, by ``<stage or head>.<name within it>``."""
        own = {name: set(map(id, parameters)) for name, parameters in self.stage_parameters().items()}
        return {
            f"{stage}.{name}": parameter
            for stage, module in self.stage_modules().items()
            for name, parameter in module.named_parameters()
            if id(parameter) in own[stage]
        }


@dataclass
class StageSummary:
    """One row of the table of stages: `norm` is ``train``, ``eval``, ``mixed`` or ``-`` for a stage without any."""

    name: str
    parameters: int
    trainable: int
    norm: str


def summarise(model: Model) -> list[StageSummary]:
    """Parameters, how many train, and the mode of the normalisation layers, by stage."""
    rows = []
    frozen = set(map(id, model.frozen_norms))
    own = model.stage_parameters()
    for name, module in model.stage_modules().items():
        modes = {"eval" if id(m) in frozen else "train" for m in module.modules() if isinstance(m, NORMS)}
        rows.append(
            StageSummary(
                name,
                sum(p.numel() for p in own[name]),
                sum(p.numel() for p in own[name] if p.requires_grad),
                "-" if not modes else modes.pop() if len(modes) == 1 else "mixed",
            )
        )
    return rows
