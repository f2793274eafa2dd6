"""Which submodules a model runs one after the other, found out by running it on a tensor without data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass
class Call:
    """One call of a unit. `plain`: it took one tensor and nothing else, and returned one."""

    name: str
    source: Any
    result: Any
    plain: bool


@dataclass
class Trace:
    """`calls` of ``forward_features`` in order; `head` names the units that ``forward_head`` ran.

    `chain` is the index from which on each unit takes exactly what the one before it returned, up to what
    ``forward_features`` returns. `pure` says that the first of these takes the images.
    """

    calls: list[Call] = field(default_factory=list)
    head: set[str] = field(default_factory=set)
    output: Any = None
    descriptor: Any = None
    chain: int = 0
    pure: bool = False


def units(model: nn.Module) -> dict[str, nn.Module]:
    """The children of `model` by name; containers among them are replaced by what they contain."""
    result = {}
    for name, child in model.named_children():
        if isinstance(child, (nn.Sequential, nn.ModuleList)) and len(child):
            result.update({f"{name}.{key}": part for key, part in child.named_children()})
        else:
            result[name] = child
    return result


@contextmanager
def fake_images(model: nn.Module, size: tuple[int, int]) -> Iterator[Tensor]:
    """Images [1, 3, *size] that have a shape but no values: what runs on them costs next to nothing.

    `model` is in eval mode meanwhile, and forgets afterwards what its modules remember of such a run (a table of
    positions, say), since that has no values either.
    """
    if not torch.cuda.is_available():
        # Without a GPU the mode lets torch believe in several. A first backward pass after that starts a thread for
        # each of them, after which no forked process can go backward; one before it starts none, for good.
        with torch.enable_grad():
            torch.zeros(1, requires_grad=True).sum().backward()
    modules = list(model.modules())
    before = [(dict(module.__dict__), dict(module._buffers)) for module in modules]
    model.eval()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            yield torch.empty(1, 3, *size)
    finally:
        # Caches that are kept in place (LeViT's) are dropped when training begins.
        model.train()
        for module, (attributes, buffers) in zip(modules, before, strict=True):
            module.__dict__.clear()
            module.__dict__.update(attributes)
            module._buffers.update(buffers)


def trace(model: nn.Module, size: tuple[int, int]) -> Trace:
    """Run the features and the head of `model`, a timm model, on images of `size` (height, width)."""
    result = Trace()
    calls: list[Call] = []

    def record(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            rest = [*args[1:], *kwargs.values()]
            plain = len(args) > 0 and isinstance(output, Tensor) and all(value is None for value in rest)
            calls.append(Call(name, args[0] if args else None, output, plain))

        return hook

    handles = [unit.register_forward_hook(record(name), with_kwargs=True) for name, unit in units(model).items()]
    try:
        with fake_images(model, size) as images:
            result.output = model.forward_features(images)
            result.calls = list(calls)
            calls.clear()
            result.descriptor = model.forward_head(result.output, pre_logits=True)
            result.head = {call.name for call in calls}
    finally:
        for handle in handles:
            handle.remove()
    names = [call.name for call in result.calls]
    expected, start = result.output, len(names)
    while start and _links(result.calls[start - 1], expected) and names.count(names[start - 1]) == 1:
        start -= 1
        expected = result.calls[start].source
    result.chain, result.pure = start, expected is images
    return result


def _links(call: Call, expected: Any) -> bool:
    return call.plain and call.result is expected


class _Draws(TorchDispatchMode):
    """Counts the operations that draw random numbers, with the numbers among their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[Any, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.calls[(str(func), *(value for value in args if isinstance(value, float)))] += 1
        return func(*args, **(kwargs or {}))


def random_calls(stages: Iterable[nn.Module], size: tuple[int, int]) -> Counter[tuple[Any, ...]]:
    """What draws random numbers when `stages` run one after the other in training mode, on images of `size`."""
    model = nn.Sequential(*stages)
    with fake_images(model, size) as images, _Draws() as draws:
        model.train()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()  # its count of batches would really grow
        model(images)
    return draws.calls
