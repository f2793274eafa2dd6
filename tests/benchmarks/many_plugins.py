"""Fifty installed plugins, of which five are broken."""

from __future__ import annotations

from pathlib import Path

from ftengine.scaffold.package import package

HEAD = "from ftengine.plugin import BackboneSpec, hookimpl\n\nFTENGINE_API = {version}\n\n"
BACKBONE = (
    '@hookimpl\ndef {hook}():\n    yield BackboneSpec(name="{name}", factory="models:tiny", summary="A network.")\n'
)

BROKEN: dict[str, tuple[str, str, str]] = {
    "broken_import": ("import no_such_module\n", "broken", "ModuleNotFoundError: No module named 'no_such_module'"),
    "broken_hook": (
        HEAD.format(version=(1, 0)) + BACKBONE.format(hook="register_backbone", name="tiny"),
        "broken",
        "'register_backbone' is marked with @hookimpl but is no hook; did you mean 'register_backbones'?",
    ),
    "broken_version": (
        HEAD.format(version=(9, 0)) + BACKBONE.format(hook="register_backbones", name="tiny"),
        "incompatible",
        "made for plugin API 9.0",
    ),
    "broken_spec": (
        HEAD.format(version=(1, 0)) + BACKBONE.format(hook="register_backbones", name="No Name"),
        "broken",
        "backbone 'No Name': a name must be lower-case letters",
    ),
    "broken_exit": ("import sys\n\nsys.exit(3)\n", "broken", "SystemExit: 3"),
}
"""By plugin: its module's source, its status, and what its cause begins with."""


def install(site: Path, count: int = 50) -> list[str]:
    """Put `count` plugins into the folder `site` as an installer does; the names of those that work."""
    working = [f"plugin_{number:02}" for number in range(count - len(BROKEN))]
    for name in working:
        for path, text in package(name, ("backbone", "loss", "metric")).files.items():
            if path.startswith("src/"):
                _write(site / path.removeprefix("src/"), text)
        _metadata(site, name)
    for name, (source, _, _) in BROKEN.items():
        _write(site / name / "plugin.py", source)
        _metadata(site, name)
    return working


def _metadata(site: Path, name: str) -> None:
    info = site / f"{name}-1.0.dist-info"
    _write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    _write(info / "entry_points.txt", f"[ftengine]\n{name} = {name}.plugin\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
