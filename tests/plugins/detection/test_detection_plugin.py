import importlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ftengine.plugin import Options
from ftengine.protocols import Head, HeadContext, LabelMap, Loss, LossContext, Metric, MetricContext, Task, TaskContext
from ftengine_detection import plugin

KINDS = {
    "task": (plugin.register_tasks, Task, TaskContext),
    "head": (plugin.register_heads, Head, HeadContext),
    "loss": (plugin.register_losses, Loss, LossContext),
    "metric": (plugin.register_metrics, Metric, MetricContext),
}
SPECS = [spec for register, _, _ in KINDS.values() for spec in register()]
CHANNELS = {"c1": 8, "c2": 16, "c3": 24, "c4": 32, "c5": 40}
STRIDES = {"c1": 2, "c2": 4, "c3": 8, "c4": 16, "c5": 32}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{spec.name}")
def test_every_factory_makes_its_kind_with_default_options(spec):
    module, name = spec.factory.split(":")
    factory = getattr(importlib.import_module(module), name)
    assert issubclass(spec.options, Options)
    _, kind, context = KINDS[spec.kind]
    task = SimpleNamespace(field="boxes", labels=LabelMap(("a", "b")), counts=np.array([3, 4]), samples=5)
    known = {
        "task": task,
        "field": "boxes",
        "head": None,
        "channels": CHANNELS,
        "strides": STRIDES,
        "backbone": "",
        "weights": None,
    }
    made = factory(spec.options(), context(**{key: known[key] for key in context.__dataclass_fields__}))
    assert isinstance(made, kind)


def test_the_defaults_exist_and_fit():
    (task,) = plugin.register_tasks()
    assert set(task.targets) == {"boxes"}
    heads = {spec.name: spec for spec in plugin.register_heads()}
    losses = {spec.name: spec for spec in plugin.register_losses()}
    metrics = {spec.name for spec in plugin.register_metrics()}
    defaults = task.targets["boxes"]
    assert heads[defaults.head].loss == defaults.loss
    assert set(defaults.metrics) <= metrics
    for head in heads.values():
        assert head.name in losses[head.loss].heads


def test_naming_the_components_imports_no_torch():
    code = (
        "import sys; from ftengine_detection import plugin as p;"
        "list(p.register_heads()); list(p.register_metrics());"
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_every_option_says_what_it_does():
    missing = [f"{s.name}.{n}" for s in SPECS for n, f in s.options.model_fields.items() if not f.description]
    assert missing == []
