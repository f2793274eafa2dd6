"""The source files under test, and what each imports."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "engine" / "ftengine"
PLUGINS = {folder.name: folder for folder in sorted((ROOT / "plugins").iterdir()) if (folder / "__init__.py").exists()}


def files(folder):
    return sorted(folder.rglob("*.py"))


def imports(path):
    """The modules that a file imports, anywhere in it; ``from a import b`` counts as ``a.b``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports here are absolute"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def label(path):
    return str(path.relative_to(ROOT))
