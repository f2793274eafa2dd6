"""Files of the repository and help texts, as fenced blocks."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from ftengine.cli import main
from ftengine.scaffold.package import package
from reference.markdown import table

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml"}


def file(path: str) -> str:
    """The content of a file of the repository."""
    text = (ROOT / path).read_text(encoding="utf-8").strip()
    return f"```{LANGUAGES[Path(path).suffix]}\n{text}\n```"


def scaffold(kind: str) -> str:
    """What ``ftengine plugins new acme-vision --kind KIND`` writes: the plugin module, then what it names."""
    files = package("acme-vision", [kind]).files
    folder = "src/acme_vision/"
    own = [path for path, text in files.items() if path.startswith(folder) and text.strip()]
    parts = []
    for path in own:
        part = path.removeprefix("src/")
        said = "says that it is there" if path.endswith("plugin.py") else "does it"
        parts.append(f"`{part}` {said}:\n\n```python\n{files[path].strip()}\n```")
    return "\n\n".join(parts)


def help_text(command: str) -> str:
    """What ``ftengine COMMAND --help`` prints in a terminal of 80 columns."""
    words = [*command.split(), "--help"]
    # Click leaves two of the columns free.
    result = CliRunner().invoke(main, words, prog_name="ftengine", terminal_width=78, catch_exceptions=False)
    if result.exit_code:
        raise ValueError(f"ftengine {' '.join(words)}: {result.output}")
    return f"```console\n$ ftengine {' '.join(words)}\n{result.output.rstrip()}\n```"


def configs(_: str) -> str:
    """The files in configs/, each with the first sentence of the comment that it begins with."""
    rows = []
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        comment = " ".join(line.lstrip("# ") for line in re.match(r"(?:#.*\n)+", text)[0].splitlines())
        said = re.match(r".+?[.:](?= [A-Z]| \w+,\w+ |$)", comment)[0]
        rows.append((f"[{name}](../{name})", f"{said[:-1]}."))
    return table(("config", "what it does"), rows)
