"""The files of a new plugin's distribution."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ftengine.plugin import API_VERSION, SPEC_HOOKS
from ftengine.scaffold.cutting import cut
from ftengine.scaffold.naming import module_of

TEMPLATE = Path(__file__).parent / "template"
"""A distribution ``my-plugin`` that has a component of every kind."""

NEEDED = {"task": ("head", "loss", "metric")}
"""What a kind brings along: a task of one's own has no other's heads, losses and metrics."""

OWN_TASK, OTHER_TASK = 'task="one_vs_rest"', 'task="classification"'

SECTIONS = {"data": "dataset", "metrics": "metric", "regularizers": "regularizer"}
"""The sections of the example whose names are not their kind's."""

ALONG = {"optimizer": "adapter"}
"""Sections that name no component, and are there for one of this kind."""

WITHOUT = {
    "task": "task: classification",
    "dataset": "data: {format: digits, limit: 600}",
    "backbone": "backbone: {name: timm, model: test_resnet, weights: none}",
}
"""What the example says where there is no component of that kind; sections of the others it does without."""


@dataclass(frozen=True)
class Package:
    """`files` are texts by path, relative to the distribution's folder, `components` (kind, full name) of each."""

    name: str
    files: Mapping[str, str]
    components: tuple[tuple[str, str], ...]

    @property
    def lines(self) -> int:
        """How many lines there are to read: those that are not blank."""
        return sum(bool(line.strip()) for text in self.files.values() for line in text.splitlines())

    def write(self, folder: Path) -> None:
        """Write all files to `folder`, which is made, or none. Raises FileExistsError if it is there."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        try:
            for path, text in self.files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text, encoding="utf-8", newline="\n")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def with_needed(kinds: Collection[str]) -> list[str]:
    """`kinds` and those that they need, in the order of the hooks."""
    chosen = {*kinds, *(needed for kind in kinds for needed in NEEDED.get(kind, ()))}
    return [spec.kind for spec in SPEC_HOOKS.values() if spec.kind in chosen]


def package(name: str, kinds: Collection[str]) -> Package:
    """The distribution `name` with one component of each of `kinds`, and of those that they need."""
    kinds = with_needed(kinds)
    module = module_of(name)

    def template(path: str) -> str:
        text = (TEMPLATE / path).read_text(encoding="utf-8")
        # The module first: a distribution's name may hold the template's, as my_plugin2 does, a module has no hyphen.
        return text.replace("my_plugin", module).replace("my-plugin", name)

    sources = f"src/{module}"
    plugin = template("src/my_plugin/plugin.py")
    plugin = re.sub(r"FTENGINE_API = .*", f"FTENGINE_API = {API_VERSION}", plugin)
    if "task" not in kinds:
        plugin = plugin.replace(OWN_TASK, OTHER_TASK)
    hooks = [hook for hook, spec in SPEC_HOOKS.items() if spec.kind in kinds]
    plugin = cut(plugin, ["FTENGINE_API", *hooks]) or ""
    files = {
        "pyproject.toml": template("pyproject.toml"),
        "README.md": template("README.md"),
        ".gitignore": template(".gitignore"),
        "example.yaml": _example(template("example.yaml"), kinds),
        f"{sources}/__init__.py": template("src/my_plugin/__init__.py"),
        f"{sources}/plugin.py": plugin,
    }
    for path in ("models", "training", "data"):
        factories = re.findall(rf'factory="{module}\.{path}:(\w+)"', plugin)
        text = cut(template(f"src/my_plugin/{path}.py"), factories)
        if text is not None:
            files[f"{sources}/{path}.py"] = text
    files[f"tests/test_{module}.py"] = template("tests/test_my_plugin.py")
    found = dict(re.findall(r'yield (\w+)Spec\(\s+name="(\w+)"', plugin))
    specs = {spec.kind: spec.__name__.removesuffix("Spec") for spec in SPEC_HOOKS.values()}
    return Package(name, files, tuple((kind, f"{module}/{found[specs[kind]]}") for kind in kinds))


def _example(text: str, kinds: Collection[str]) -> str:
    """The template's example with what is not of `kinds` left out, or replaced by a built-in component."""
    lines = []
    for line in text.splitlines():
        section = line.partition(":")[0]
        kind = {**SECTIONS, **ALONG}.get(section, section)
        if kind in kinds or section in ("image", "train"):
            lines.append(line)
        elif kind in WITHOUT:
            lines.append(WITHOUT[kind])
    return "\n".join(lines) + "\n"
