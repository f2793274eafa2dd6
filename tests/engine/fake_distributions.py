"""Installed distributions made of a few files, for tests of the plugin host.

A distribution is a folder on ``sys.path`` that holds modules and a ``*.dist-info``, just as an installer leaves it.
"""

import importlib
import itertools
import sys
import textwrap

import pytest

HEADER = """
from ftengine.plugin import *
FTENGINE_API = (1, 0)
"""

BACKBONE = """
@hookimpl
def register_backbones():
    yield BackboneSpec(name="{name}", factory="{module}_models:{name}", summary="A backbone called {name}.")
"""


class Distributions:
    """Installs fake distributions for one test and takes their modules away after it."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.counter = itertools.count()
        self.modules_before = set(sys.modules)

    def install(self, name, plugins, version="1.0", files=None, entry_points=None):
        """Install distribution `name`: `plugins` maps entry points to (module, source); `files` are further ones."""
        root = self.folder / f"site-{next(self.counter)}"
        info = root / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"{entry} = {module}" for entry, (module, _) in plugins.items()]
        text = "\n".join(["[ftengine]", *lines]) if entry_points is None else entry_points
        (info / "entry_points.txt").write_text(text + "\n")
        sources = {f"{module.replace('.', '/')}.py": source for module, source in plugins.values()}
        for path, source in {**sources, **(files or {})}.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(source))
        self.monkeypatch.syspath_prepend(str(root))
        importlib.invalidate_caches()
        return root

    def plugin(self, name, source, **options):
        """Install a distribution ``<name>-dist`` with one plugin `name` in a module ``<name>_plugin``."""
        self.install(f"{name}-dist", {name: (f"{name}_plugin", HEADER + textwrap.dedent(source))}, **options)

    def engine(self, **sources):
        """Install a distribution ``ftengine`` with these built-in plugins, which hides the real one's."""
        plugins = {name: (f"builtin_{name}", HEADER + textwrap.dedent(source)) for name, source in sources.items()}
        self.install("ftengine", plugins, version="0.0")

    def remove_modules(self):
        for module in set(sys.modules) - self.modules_before:
            file = getattr(sys.modules[module], "__file__", None) or ""
            if file.startswith(str(self.folder)):
                del sys.modules[module]


@pytest.fixture
def distributions(tmp_path, monkeypatch):
    """Fake distributions; the real built-in plugins are hidden behind an engine that has only what a test asks for."""
    monkeypatch.delenv("FTENGINE_DISABLE_PLUGINS", raising=False)
    fake = Distributions(tmp_path, monkeypatch)
    fake.engine(
        base="""
        @hookimpl
        def register_tasks():
            defaults = Defaults(head="linear", loss="cross_entropy", metrics=("accuracy",))
            yield TaskSpec(name="classification", factory="m:f", summary="Classes.", targets={"label": defaults})
            yield TaskSpec(name="regression", factory="m:f", summary="Numbers.", targets={"values": defaults})

        class LinearOptions(Options):
            dropout: float = 0.0

        @hookimpl
        def register_heads():
            for task in ("classification", "regression"):
                yield HeadSpec(name="linear", task=task, factory="m:f", summary="One layer.", options=LinearOptions)

        @hookimpl
        def register_losses():
            yield LossSpec(name="cross_entropy", task="classification", factory="m:f", summary="Cross-entropy.")
            yield LossSpec(name="mse", task="regression", factory="m:f", summary="Squared error.")

        @hookimpl
        def register_metrics():
            yield MetricSpec(name="accuracy", task="classification", primary="accuracy", factory="m:f", summary="A.")
        """,
        nets="""
        @hookimpl
        def register_backbones():
            for name in ("resnet18", "resnet50"):
                yield BackboneSpec(name=name, factory="m:f", summary="Residual network.", weights=("V1",))
        """,
    )
    yield fake
    fake.remove_modules()
