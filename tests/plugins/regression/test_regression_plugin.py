import importlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ftengine.plugin import Options
from ftengine.protocols import Head, HeadContext, Loss, LossContext, Metric, MetricContext, Task, TaskContext
from ftengine_regression import plugin

KINDS = {
    "task": (plugin.register_tasks, Task, TaskContext),
    "head": (plugin.register_heads, Head, HeadContext),
    "loss": (plugin.register_losses, Loss, LossContext),
    "metric": (plugin.register_metrics, Metric, MetricContext),
}
SPECS = [spec for register, _, _ in KINDS.values() for spec in register()]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{spec.name}")
def test_every_factory_makes_its_kind_with_default_options(spec):
    module, name = spec.factory.split(":")
    factory = getattr(importlib.import_module(module), name)
    assert issubclass(spec.options, Options)
    _, kind, context = KINDS[spec.kind]
    task = SimpleNamespace(names=("a", "b"), transforms=("none", "log"), mean=np.zeros(2), std=np.ones(2))
    features = {"channels": {"c5": 8}, "strides": {"c5": 32}, "backbone": "resnet18", "weights": None}
    known = {"task": task, "field": "values", "head": None, **features}
    made = factory(spec.options(), context(**{key: known[key] for key in context.__dataclass_fields__}))
    assert isinstance(made, kind)
    if spec.kind == "metric":
        assert spec.primary in made.compute()
        assert spec.mode == ("max" if spec.name == "r2" else "min")


def test_the_defaults_exist():
    (task,) = plugin.register_tasks()
    (defaults,) = task.targets.values()
    assert defaults.head in {spec.name for spec in plugin.register_heads()}
    assert defaults.loss in {spec.name for spec in plugin.register_losses()}
    assert set(defaults.metrics) <= {spec.name for spec in plugin.register_metrics()}


def test_naming_the_components_imports_no_torch():
    code = (
        "import sys; from ftengine_regression import plugin as p;"
        "list(p.register_heads()); print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_every_option_says_what_it_does():
    missing = [f"{s.name}.{n}" for s in SPECS for n, f in s.options.model_fields.items() if not f.description]
    assert missing == []
