"""What ``backbone.weights`` means, decided without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftengine.config_refs import Weights
from ftengine.errors import FtengineError, nearest
from ftengine.plugin import BackboneSpec

FILE_SUFFIXES = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True)
class WeightSource:
    """`kind` and its `value`: a name of published weights, a file, or a run directory."""

    kind: Literal["none", "published", "file", "run"]
    value: str = ""
    allow: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """As a config says it."""
        return {"none": "none", "run": f"run:{self.value}"}.get(self.kind, self.value)


def weight_source(weights: Weights, spec: BackboneSpec, backbone: str, *, present: bool = True) -> WeightSource:
    """Decide what the text means for `backbone`; raises FtengineError for what it cannot mean.

    `present`: the file or folder must exist.
    """
    text, allow = weights.source, weights.allow
    published = ", ".join(["default", *spec.weights] if spec.default_weights else spec.weights)
    choices = f"{published or '(nothing published)'}, none, a file ({', '.join(FILE_SUFFIXES)}), or run:DIR"
    if text == "none":
        return WeightSource("none", allow=allow)
    if text == "default":
        if spec.default_weights is None:
            raise FtengineError(f"{backbone} has no published weights; say where they are, or `none`: {choices}")
        return WeightSource("published", spec.default_weights, allow)
    if text in spec.weights:
        return WeightSource("published", text, allow)
    if text.startswith("run:"):
        folder = Path(text.removeprefix("run:")).expanduser().absolute()
        if present and not (folder / "resolved.yaml").is_file():
            raise FtengineError(f"{folder} is not a run directory: it has no resolved.yaml")
        return WeightSource("run", str(folder), allow)
    if text.endswith(FILE_SUFFIXES):
        file = Path(text).expanduser().absolute()
        if present and not file.is_file():
            if not file.parent.is_dir():
                raise FtengineError(f"no such file: {file}; there is no folder {file.parent}")
            near = nearest(file.name, [entry.name for entry in file.parent.iterdir()])
            raise FtengineError(f"no such file: {file}" + (f"; did you mean {near!r}?" if near else ""))
        return WeightSource("file", str(file), allow)
    if spec.open_weights:
        return WeightSource("published", text, allow)
    near = nearest(text, ["default", "none", *spec.weights])
    hint = f"; did you mean {near!r}?" if near else ""
    raise FtengineError(f"{backbone} has no weights {text!r}{hint} (expected {choices})")
