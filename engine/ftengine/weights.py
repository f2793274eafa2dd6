"""Pretrained weights: where they come from, how they are read, and the report of what was loaded."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ftengine.document import read
from ftengine.errors import WeightsError, name_list
from ftengine.protocols import Backbone, Head
from ftengine.weight_source import WeightSource

WRAPPERS = ("state_dict", "model", "model_state_dict", "model_ema", "params")
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "stages.")


@dataclass
class Coverage:
    """What loading did, tensor by tensor. `stages` maps a stage to (loaded, total) tensors."""

    source: str
    stages: dict[str, tuple[int, int]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def describe(self) -> list[str]:
        """The report, a line a stage and a line for each kind of difference."""
        lines = [f"weights from {self.source}"]
        lines += [f"  {stage}: {loaded} of {total} tensors" for stage, (loaded, total) in self.stages.items()]
        for what, names in (
            ("not used by this backbone, as expected", self.discarded),
            ("allowed differences", self.allowed),
            ("missing in the file", self.missing),
            ("of another shape", self.mismatched),
            ("unexpected in the file", self.unexpected),
        ):
            if names:
                lines.append(f"  {what}: {len(names)} ({name_list(names, 6)})")
        return lines


def load_weights(backbone: Backbone, source: WeightSource) -> Coverage | None:
    """Load `source` into `backbone`; None for random weights.

    Raises WeightsError, with the report, on any difference that was neither expected (the published classifier)
    nor allowed by ``weights.allow``.
    """
    if source.kind == "none":
        return None
    if source.kind == "run":
        tensors, label = _of_run(Path(source.value))
        backbone.mean, backbone.std = (tuple(tensors[key].flatten().tolist()) for key in ("mean", "std"))
        others = {name for name in tensors if not name.startswith("backbone.")}
    else:
        file, label = _locate(backbone, source)
        tensors, others = read_tensors(file), _read_header(backbone, file)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in others}
    coverage = assign(backbone, tensors, label, source.allow)
    coverage.discarded += sorted(others - {"mean", "std"})
    if coverage.missing or coverage.mismatched or coverage.unexpected:
        report = "\n".join(coverage.describe())
        hint = "if these differences are meant, list globs for them under backbone.weights.allow"
        raise WeightsError(f"backbone.weights: the weights do not fit the backbone\n{report}\n  {hint}")
    return coverage


def _locate(backbone: Backbone, source: WeightSource) -> tuple[Path, str]:
    if source.kind == "file":
        return Path(source.value), source.value
    if backbone.url is None:
        raise WeightsError(f"backbone.weights: nothing is known of where {source.value!r} can be had")
    file = published_file(backbone.url, backbone.weights_file, source.value, "backbone.weights")
    return file, f"{source.value} ({backbone.url})"


def _of_run(run: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a run's best checkpoint, its adapter merged, and what to call them."""
    from ftengine.checkpoint import Store, best_or_last

    folder, config = best_or_last(run), run / "resolved.yaml"
    label = f"run:{run} ({folder.name})"
    if not config.is_file() or read(config).data.get("adapter") is None:
        return Store(run).load(folder, for_training=False).model, label
    from ftengine.export import merged_tensors  # it builds the run's model

    return merged_tensors(run, folder), f"{label}, with its adapter merged"


def _read_header(backbone: Backbone, file: Path) -> set[str]:
    """Take mean and deviation from a file that was exported, and return its names that are not a backbone's."""
    try:
        with safetensors.safe_open(file, "pt") as content:
            header = content.metadata() or {}
        if "ftengine" not in header:
            return set()
        backbone.mean, backbone.std = (tuple(map(float, json.loads(header[key]))) for key in ("mean", "std"))
        return set(json.loads(header["others"]))
    except SafetensorError:  # another format
        return set()
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{file}: what ftengine says in its header is damaged: {error!r}") from None


def published_file(url: str, file_name: str | None, label: str, key: str) -> Path:
    """The file of published weights, from torch hub's cache, else downloaded to it.

    Raises WeightsError that names the file looked for, and how to supply it; `key` is where the config names them.
    """
    name = file_name or Path(urlparse(url).path).name
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    if file.is_file():
        return file
    digest = re.search(r"-([0-9a-f]{8,})\.", name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), digest.group(1) if digest else None, progress=True)
    except (OSError, RuntimeError) as error:
        instead = (
            "name a file of your own in backbone.weights, or say `none` to start from random weights"
            if key == "backbone.weights"
            else f"leave {key} out"
        )
        raise WeightsError(
            f"{key}: {label} is not on this machine and could not be downloaded\n"
            f"  looked for {file}\n  tried {url}: {error}\n  put the file there, or {instead}"
        ) from None
    return file


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .pth file through torch's weights-only reader, on the CPU."""
    try:
        with file.open("rb") as stream:  # published files carry a suffix that does not always say what they are
            zipped = stream.read(2) == b"PK"
        if file.suffix == ".safetensors" and not zipped:
            return safetensors.torch.load_file(file)
        with file.open("rb") as stream:  # not the path: torch, too, would go by the suffix
            content = torch.load(stream, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"no such file: {file}") from None
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise WeightsError(f"{file} cannot be read as weights: {_first_line(error)}") from None
    except Exception as error:  # weights_only refuses with pickle's own errors; nothing of the file was run
        raise WeightsError(
            f"{file} holds more than tensors, or is damaged, and is not read: {_first_line(error)}"
        ) from None
    while isinstance(content, Mapping) and (inner := _wrapped(content)) is not None:
        content = inner
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{file} holds no state dict: expected a mapping of names to tensors")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _wrapped(content: Mapping[str, object]) -> Mapping[str, object] | None:
    for key in WRAPPERS:
        inner = content.get(key)
        if isinstance(inner, Mapping):
            return inner
    return None


def _first_line(error: Exception) -> str:
    if isinstance(error, KeyError):  # torch's reader took the first bytes for an instruction; their code says nothing
        return "it is not a file that torch.save wrote"
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def assign(backbone: Backbone, tensors: Mapping[str, Tensor], source: str, allow: Sequence[str] = ()) -> Coverage:
    """Copy `tensors` into `backbone` by name and say what did not fit; nothing is copied if anything did not.

    The file may use the published names or the backbone's own; a common prefix such as ``module.`` is taken off.
    """
    own = backbone.stages.state_dict()
    published = {name.removeprefix("stages."): theirs for name, theirs in backbone.published.items()}
    by_published = {published.get(name, name): name for name in own}
    by_own = {name: name for name in own}
    file, names = max(
        ((stripped, candidate) for stripped in _without_prefixes(tensors) for candidate in (by_published, by_own)),
        key=lambda pair: sum(name in pair[1] for name in pair[0]),
    )
    if names is by_published:
        file = backbone.adapt(file)
    coverage = Coverage(source)
    copies: dict[str, Tensor] = {}
    discarded = set(backbone.discarded)
    for name, tensor in file.items():
        if name in names:
            target = own[names[name]]
            if target.shape == tensor.shape:
                copies[names[name]] = tensor
            else:
                shapes = f"{list(tensor.shape)} in the file, {list(target.shape)} in the backbone"
                _note(coverage, coverage.mismatched, names[name], allow, f" ({shapes})")
        elif name in discarded:
            coverage.discarded.append(name)
        else:
            _note(coverage, coverage.unexpected, name, allow)
    absent = {own_name for name, own_name in names.items() if name not in file}
    for name in own:
        if name in absent and not name.endswith("num_batches_tracked"):  # a counter that old files lack
            _note(coverage, coverage.missing, name, allow)
    for stage in backbone.stages:
        within = [name for name in own if name.startswith(f"{stage}.")]
        if within:
            coverage.stages[stage] = (sum(name in copies for name in within), len(within))
    broken = [name for name, tensor in copies.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise WeightsError(f"backbone.weights: {source} holds values that are not finite: {name_list(broken)}")
    if not (coverage.missing or coverage.mismatched or coverage.unexpected):
        with torch.no_grad():
            for name, tensor in copies.items():
                own[name].copy_(tensor)
    return coverage


def load_published(backbone: Backbone, head: Head, label: str) -> Coverage:
    """Load a published model's head and backbone together; what depends on the classes keeps its new values.

    Raises WeightsError, with the report, where anything else is missing, unexpected or of another shape.
    """
    model = head.published
    if model is None:
        raise WeightsError(f"head.weights: the head does not say where {label!r} can be had")
    tensors = head.adapt(read_tensors(published_file(model.url, None, label, "head.weights")))
    inner = {name: tensor for name, tensor in tensors.items() if name.startswith(model.backbone)}
    own, coverage = head.state_dict(), Coverage(f"{label} ({model.url})")
    copies: dict[str, Tensor] = {}
    for name, tensor in own.items():
        theirs = tensors.get(model.names.get(name, ""))
        if name in model.replaced:
            coverage.allowed.append(f"{name} (new, for these classes)")
        elif theirs is None:
            if not name.endswith("num_batches_tracked"):
                coverage.missing.append(f"head.{name}")
        elif theirs.shape != tensor.shape:
            shapes = f"{list(theirs.shape)} in the file, {list(tensor.shape)} in the head"
            coverage.mismatched.append(f"head.{name} ({shapes})")
        else:
            copies[name] = theirs
    for name in tensors.keys() - inner.keys() - set(model.names.values()):
        discarded = any(fnmatch.fnmatchcase(name, pattern) for pattern in model.discarded)
        (coverage.discarded if discarded else coverage.unexpected).append(name)
    body = assign(backbone, {name.removeprefix(model.backbone): tensor for name, tensor in inner.items()}, label)
    coverage.stages = {**body.stages, "head": (len(copies), len(own))}
    for kind in ("missing", "unexpected", "mismatched", "discarded"):
        getattr(coverage, kind).extend(getattr(body, kind))
    if coverage.missing or coverage.mismatched or coverage.unexpected:
        report = "\n".join(coverage.describe())
        raise WeightsError(f"head.weights: the weights do not fit head and backbone\n{report}")
    with torch.no_grad():
        for name, tensor in copies.items():
            own[name].copy_(tensor)
        if model.norm_eps is not None:
            _rescale_norms(backbone, model.norm_eps)
    return coverage


def _rescale_norms(backbone: Backbone, eps: float) -> None:
    """Scale BatchNorm layers so that with their own epsilon they do what they did with `eps`.

    They keep their own, because torch refuses to train with an epsilon of 0.
    """
    for module in backbone.modules():
        variance = getattr(module, "running_var", None)
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and variance is not None:
            measured = (variance + eps).clamp_min(torch.finfo(variance.dtype).tiny)
            module.weight.mul_(((variance + module.eps) / measured).sqrt())


def _note(coverage: Coverage, kind: list[str], name: str, allow: Sequence[str], detail: str = "") -> None:
    """Count `name` as a difference of `kind`, unless a glob allows it."""
    allowed = any(fnmatch.fnmatchcase(name, pattern) for pattern in allow)
    (coverage.allowed if allowed else kind).append(name + detail)


def _without_prefixes(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The names as they are, and with each prefix that all or most of them share taken off in turn."""
    versions = [dict(tensors)]
    while True:
        current = versions[-1]
        prefix = next(
            (p for p in PREFIXES if sum(name.startswith(p) for name in current) * 2 > max(1, len(current))), None
        )
        if prefix is None:
            return versions
        versions.append({name.removeprefix(prefix): tensor for name, tensor in current.items()})
