import importlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ftengine.plugin import Options
from ftengine.protocols import Head, HeadContext, LabelMap, Loss, LossContext, Metric, MetricContext, Task, TaskContext
from ftengine_classification import plugin

KINDS = {
    "task": (plugin.register_tasks, Task, TaskContext),
    "head": (plugin.register_heads, Head, HeadContext),
    "loss": (plugin.register_losses, Loss, LossContext),
    "metric": (plugin.register_metrics, Metric, MetricContext),
}
SPECS = [spec for register, _, _ in KINDS.values() for spec in register()]


def fields(spec):
    return spec.fields if getattr(spec, "fields", ()) else ("label", "labels")


@pytest.mark.parametrize(
    ("spec", "field"), [(s, f) for s in SPECS for f in fields(s)], ids=lambda v: getattr(v, "name", v)
)
def test_every_factory_makes_its_kind_with_default_options(spec, field):
    module, name = spec.factory.split(":")
    factory = getattr(importlib.import_module(module), name)
    assert issubclass(spec.options, Options)
    _, kind, context = KINDS[spec.kind]
    names = LabelMap(tuple("abcdef"))
    task = SimpleNamespace(
        field=field, labels=names, multi_label=field == "labels", threshold=0.5, counts=np.full(6, 2), samples=20
    )
    features = {"channels": {"c5": 8}, "strides": {"c5": 32}, "backbone": "resnet18", "weights": None}
    known = {"task": task, "field": field, "head": None, **features}
    made = factory(spec.options(), context(**{key: known[key] for key in context.__dataclass_fields__}))
    assert isinstance(made, kind)
    if spec.kind == "metric":
        assert spec.primary.format(**spec.options().model_dump()) in made.compute()


def test_the_defaults_of_each_field_exist_and_fit():
    (task,) = plugin.register_tasks()
    for field, defaults in task.targets.items():
        assert defaults.head in {spec.name for spec in plugin.register_heads()}
        assert defaults.loss in {spec.name for spec in plugin.register_losses() if field in spec.fields}
        assert set(defaults.metrics) <= {spec.name for spec in plugin.register_metrics() if field in spec.fields}


def test_naming_the_components_imports_no_torch():
    code = (
        "import sys; from ftengine_classification import plugin as p;"
        "list(p.register_heads()); print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_every_option_says_what_it_does():
    missing = [f"{s.name}.{n}" for s in SPECS for n, f in s.options.model_fields.items() if not f.description]
    assert missing == []


def test_what_the_task_softens_every_loss_of_it_takes():
    (task,) = plugin.register_tasks()
    assert task.soft == ("label", "labels")
    assert {spec.name for spec in plugin.register_losses() if spec.soft} == {s.name for s in plugin.register_losses()}
