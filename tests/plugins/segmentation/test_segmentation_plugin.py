import importlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ftengine.plugin import Options
from ftengine.protocols import Head, HeadContext, LabelMap, Loss, LossContext, Metric, MetricContext, Task, TaskContext
from ftengine_segmentation import plugin

KINDS = {
    "task": (plugin.register_tasks, Task, TaskContext),
    "head": (plugin.register_heads, Head, HeadContext),
    "loss": (plugin.register_losses, Loss, LossContext),
    "metric": (plugin.register_metrics, Metric, MetricContext),
}
SPECS = [spec for register, _, _ in KINDS.values() for spec in register()]
LEVELS = {f"c{level}": 2**level for level in range(1, 6)}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{spec.name}")
def test_every_factory_makes_its_kind_with_default_options(spec):
    module, name = spec.factory.split(":")
    factory = getattr(importlib.import_module(module), name)
    assert issubclass(spec.options, Options)
    _, kind, context = KINDS[spec.kind]
    known = {
        "task": SimpleNamespace(field="mask", labels=LabelMap(tuple("abcdef"), ignore=255), pixels=None),
        "field": "mask",
        "head": None,
        "channels": dict.fromkeys(LEVELS, 16),
        "strides": LEVELS,
        "backbone": "resnet18",
        "weights": None,
    }
    made = factory(spec.options(), context(**{key: known[key] for key in context.__dataclass_fields__}))
    assert isinstance(made, kind)
    if spec.kind == "metric":
        assert spec.primary in made.compute()


def test_the_metrics_have_no_key_in_common():
    """So that all of them can be asked for together, and each value has a name of its own."""
    task = SimpleNamespace(labels=LabelMap(("a", "b")))
    keys = []
    for spec in plugin.register_metrics():
        module, name = spec.factory.split(":")
        metric = getattr(importlib.import_module(module), name)(spec.options(), MetricContext(task))
        keys += metric.compute()
    assert sorted(keys) == sorted(set(keys))


def test_the_defaults_exist():
    (task,) = plugin.register_tasks()
    losses = {spec.name for spec in plugin.register_losses()}
    for defaults in task.targets.values():
        assert defaults.head in {spec.name for spec in plugin.register_heads()}
        assert defaults.loss in losses
        assert set(defaults.metrics) <= {spec.name for spec in plugin.register_metrics()}
    assert {spec.loss for spec in plugin.register_heads()} <= {*losses, None}


def test_naming_the_components_imports_no_torch():
    code = (
        "import sys; from ftengine_segmentation import plugin as p;"
        "list(p.register_heads()); print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_every_option_says_what_it_does():
    missing = [f"{s.name}.{n}" for s in SPECS for n, f in s.options.model_fields.items() if not f.description]
    assert missing == []
