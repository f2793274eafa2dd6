"""What a spec is refused for, and how the names in it are resolved."""

import pytest

from ftengine.host import Host

OPTIONS = """
import threading
import warnings
from pydantic import Field
class Named(Options):
    name: str = "x"
class Weighted(Options):
    weights: str = "x"
class Aliased(Options):
    label: str = Field("x", alias="name")
class Loose(Options, extra="allow"):
    width: int = 1
class Format(DatasetOptions):
    format: str = "x"
class Opaque(Options, arbitrary_types_allowed=True):
    thing: threading.Thread | None = None
class Plain(Options):
    width: int = 1
with warnings.catch_warnings(action="ignore"):
    class Hiding(DatasetOptions):
        clip_frames: int = 8
"""

CALLS = {
    "backbone": "BackboneSpec(name='a', factory='m:f', summary='S.')",
    "head": "HeadSpec(name='a', factory='m:f', summary='S.', task='classification')",
    "loss": "LossSpec(name='a', factory='m:f', summary='S.', task='classification')",
    "metric": "MetricSpec(name='a', factory='m:f', summary='S.', task='classification', primary='a')",
    "freeze": "FreezeSpec(name='a', factory='m:f', summary='S.')",
    "dataset": "DatasetSpec(name='a', factory='m:f', summary='S.', fields=('label',))",
    "regularizer": "RegularizerSpec(name='a', factory='m:f', summary='S.')",
    "adapter": "AdapterSpec(name='a', factory='m:f', summary='S.')",
    "strategy": "StrategySpec(name='a', summary='S.')",
    "task": "TaskSpec(name='a', factory='m:f', summary='S.', targets={'label': Defaults('h', 'l', ('m',))})",
}
HOOKS = {
    "backbone": "register_backbones",
    "head": "register_heads",
    "loss": "register_losses",
    "metric": "register_metrics",
    "freeze": "register_freeze_policies",
    "dataset": "register_datasets",
    "regularizer": "register_regularizers",
    "adapter": "register_adapters",
    "strategy": "register_strategies",
    "task": "register_tasks",
}


def load(distributions, kind, *changes):
    """The record of a plugin with a spec of `kind` for each of `changes`, which are applied to a plain one."""
    specs = ", ".join(f"replace({CALLS[kind]}, {change})" for change in changes)
    hook = f"@hookimpl\ndef {HOOKS[kind]}():\n    return [{specs}]"
    distributions.plugin("acme", f"{OPTIONS}\nfrom dataclasses import replace\n{hook}")
    return next(record for record in Host.discover().plugins if record.name == "acme")


@pytest.mark.parametrize("kind", list(CALLS))
def test_a_plain_spec_of_each_kind_is_fine(distributions, kind):
    assert load(distributions, kind, "summary='T.'").cause is None


@pytest.mark.parametrize(
    ("kind", "argument", "cause"),
    [
        ("backbone", "name='Tiny'", "backbone 'Tiny': a name must be lower-case letters, digits and underscores"),
        ("backbone", "name='acme/tiny'", "backbone 'acme/tiny': a name must be"),
        ("backbone", "name='2net'", "backbone '2net': a name must be"),
        ("backbone", "name=None", "backbone None: a name must be"),
        ("backbone", "factory='m.f'", "backbone 'a': factory must be a string 'module:callable', not 'm.f'"),
        ("backbone", "factory=print", "backbone 'a': factory must be a string 'module:callable', not <built-in"),
        ("backbone", "factory='m:f()'", "backbone 'a': factory must be"),
        ("backbone", "summary=''", "backbone 'a': summary must be one line of text, not ''"),
        ("backbone", "summary='one\\ntwo'", "backbone 'a': summary must be one line of text"),
        ("backbone", "requires='scipy'", "backbone 'a': requires must be a tuple of strings, not 'scipy'"),
        ("backbone", "requires=('scipy>=1',)", "backbone 'a': requires must hold names of distributions, without"),
        ("backbone", "levels=('c1', 'c1')", "backbone 'a': levels names something twice: c1, c1"),
        ("backbone", "levels=()", "backbone 'a': levels is empty"),
        ("backbone", "levels='c1'", "backbone 'a': levels must be a tuple of strings, not 'c1'"),
        ("backbone", "weights=['V1']", "backbone 'a': weights must be a tuple of strings"),
        ("backbone", "default_weights='V1'", "backbone 'a': default_weights 'V1' is not among its weights: none"),
        ("backbone", "options=dict", "backbone 'a': options must be a subclass of Options, not <class 'dict'>"),
        ("backbone", "options=Options()", "backbone 'a': options must be a subclass of Options, not Options()"),
        ("backbone", "options=Named", "backbone 'a': Named has an option 'name', a key that a config's backbone"),
        ("backbone", "options=Aliased", "backbone 'a': Aliased has an option 'name'"),
        ("backbone", "options=Weighted", "backbone 'a': Weighted has an option 'weights'"),
        ("backbone", "options=Loose", "backbone 'a': Loose must keep extra='forbid'"),
        ("backbone", "options=Opaque", "backbone 'a': Opaque has no JSON Schema, from which listings and editors know"),
        ("dataset", "options=Plain", "dataset 'a': options must be a subclass of DatasetOptions"),
        ("dataset", "options=Format", "dataset 'a': Format has an option 'format'"),
        ("dataset", "options=Hiding", "dataset 'a': Hiding has an option 'clip_frames', which hides the method"),
        ("dataset", "fields=()", "dataset 'a': fields is empty"),
        ("head", "task=''", "head 'a': task must be the name of a task, not ''"),
        ("head", "levels='c1'", "head 'a': levels must be a tuple of strings"),
        ("loss", "heads=['h']", "loss 'a': heads must be a tuple of strings"),
        ("loss", "fields='label'", "loss 'a': fields must be a tuple of strings"),
        ("metric", "primary=''", "metric 'a': primary must be a key of compute(), not ''"),
        ("metric", "mode='up'", "metric 'a': mode must be 'max' or 'min', not 'up'"),
        ("metric", "fields=(1,)", "metric 'a': fields must be a tuple of strings"),
        ("task", "targets={}", "task 'a': targets is empty"),
        ("task", "targets={'label': 'linear'}", "task 'a': targets must map the name of a target field to Defaults"),
        ("task", "targets={'label': Defaults('h', 'l', 'accuracy')}", "task 'a': targets['label']: metrics must be"),
        ("strategy", "factory='m:f'", "strategy 'a': a strategy is its settings: it has neither factory nor options"),
        ("strategy", "settings=['freeze']", "strategy 'a': settings must be a mapping of sections of a config"),
        ("strategy", "settings={'freez': 'all'}", "strategy 'a': settings: unknown section 'freez'; did you mean"),
        ("strategy", "settings={'adapter': None}", "strategy 'a': settings: adapter must be a name, or a mapping"),
        ("strategy", "settings={'freeze': 5}", "strategy 'a': settings: freeze must be a name, or a mapping"),
        ("strategy", "settings={'freeze': {'name': 3}}", "strategy 'a': settings: freeze must be a name, or a"),
        ("strategy", "settings={'freeze': {'frozen_norm': 'eval'}}", "strategy 'a': settings: freeze must be a name"),
        ("strategy", "settings={'optimizer': ['a']}", "strategy 'a': settings: optimizer must be a name, or a"),
        ("strategy", "settings={'regularizers': 5}", "strategy 'a': settings: regularizers must be names, or"),
        ("strategy", "settings={'regularizers': [{'strength': 1}]}", "strategy 'a': settings: regularizers must be"),
        ("strategy", "settings={'mix': None}", "strategy 'a': settings: mix must be a mapping, not None"),
        ("strategy", "settings={'train': 'x'}", "strategy 'a': settings: train must be a mapping, not 'x'"),
        ("freeze", "options=Named", "freeze 'a': Named has an option 'name', a key that a config's freeze section"),
    ],
)
def test_a_wrong_spec_breaks_its_plugin(distributions, kind, argument, cause):
    record = load(distributions, kind, argument)
    assert record.status == "broken"
    assert record.cause.startswith(cause)


@pytest.mark.parametrize(
    ("kind", "argument"),
    [
        ("metric", "options=Weighted"),
        ("backbone", "open_weights=True, default_weights='V1'"),
        ("backbone", "weights=('V1',), default_weights='V1'"),
        ("backbone", "requires=('scikit-learn', 'timm')"),
        ("dataset", "fields=('label', 'field_of_acme')"),
        ("backbone", "factory='acme.models:Nets.make'"),
        ("strategy", "settings={'optimizer': {'layer_decay': 0.5}, 'regularizers': 'l1', 'train': {'swa': {}}}"),
        ("strategy", "settings={'freeze': 'all', 'regularizers': [{'name': 'l1'}, 'l2_sp'], 'mix': {'mixup': 1.0}}"),
    ],
)
def test_specs_that_are_fine(distributions, kind, argument):
    assert load(distributions, kind, argument).cause is None


def test_all_wrong_specs_of_a_plugin_are_told_together(distributions):
    cause = load(distributions, "backbone", "name='A', summary=''", "factory='f'").cause
    assert cause.count("; ") == 2
    assert cause.startswith("backbone 'A': a name must")
    assert "; backbone 'A': summary must" in cause
    assert "; backbone 'a': factory must" in cause


def test_a_name_counts_once_within_kind_and_task(distributions):
    assert load(distributions, "backbone", "levels=('c1',)", "summary='T.'").cause == "backbone 'a' is registered twice"


def test_a_head_of_two_tasks_may_have_one_name_but_not_twice_in_one(distributions):
    record = load(distributions, "head", "task='regression'", "summary='T.'", "task='regression'")
    assert record.cause == "head 'a' is registered twice for the task 'regression'"


# --- full names ------------------------------------------------------------------------------------------------

POSE = """
@hookimpl
def register_tasks():
    defaults = Defaults(head="heatmap", loss="distance", metrics=("pck",))
    for name in ("pose", "regression"):
        yield TaskSpec(name=name, factory="m:f", summary="S.", targets={"points": defaults})

@hookimpl
def register_heads():
    yield HeadSpec(name="heatmap", task="pose", factory="m:f", summary="S.")
    yield HeadSpec(name="prefixed", task="acme/pose", factory="m:f", summary="S.")
    yield HeadSpec(name="deep", task="regression", factory="m:f", summary="S.")
    yield HeadSpec(name="linear", task="regression", factory="m:f", summary="S.")

@hookimpl
def register_losses():
    yield LossSpec(name="distance", task="pose", heads=("heatmap", "prefixed"), factory="m:f", summary="S.")
    yield LossSpec(name="both", task="regression", heads=("linear", "deep"), factory="m:f", summary="S.")
    yield LossSpec(name="own", task="regression", heads=("acme/linear",), factory="m:f", summary="S.")
"""


def test_a_third_partys_own_task_gets_its_full_name_everywhere(distributions):
    distributions.plugin("acme", POSE)
    host = Host.discover()
    assert {"acme/pose", "acme/regression"} < set(host.names("task"))
    assert host.names("head", "acme/pose") == ["acme/heatmap", "acme/prefixed"]
    loss = host.find("loss", "acme/distance", "acme/pose")
    assert (loss.task, loss.spec.task, loss.spec.heads) == ("acme/pose", "acme/pose", ("acme/heatmap", "acme/prefixed"))
    defaults = host.find("task", "acme/pose").spec.targets["points"]
    assert (defaults.head, defaults.loss, defaults.metrics) == ("acme/heatmap", "acme/distance", ("pck",))


def test_a_bare_name_means_the_built_in_one_before_the_plugins_own(distributions):
    distributions.plugin("acme", POSE)
    host = Host.discover()
    assert host.names("head", "regression") == ["acme/deep", "acme/linear", "linear"]
    assert host.find("loss", "acme/both", "regression").spec.heads == ("linear", "acme/deep")
    assert host.find("loss", "acme/own", "regression").spec.heads == ("acme/linear",)


def test_a_component_may_be_of_another_third_partys_task(distributions):
    distributions.plugin("acme", POSE)
    distributions.plugin(
        "more",
        "@hookimpl\ndef register_heads():\n"
        "    yield HeadSpec(name='wide', task='acme/pose', factory='m:f', summary='S.')",
    )
    host = Host.discover()
    assert "more/wide" in host.names("head", "acme/pose")
    assert [record.notes for record in host.plugins if record.name == "more"] == [()]


def test_a_component_of_a_task_that_nobody_has_gets_a_note(distributions):
    distributions.plugin(
        "acme",
        "@hookimpl\ndef register_heads():\n"
        "    for name in ('a', 'b'):\n"
        "        yield HeadSpec(name=name, task='keypoints', factory='m:f', summary='S.')",
    )
    record = next(record for record in Host.discover().plugins if record.name == "acme")
    assert record.status == "ok"
    assert record.notes == (
        "no installed plugin has the task 'keypoints', which these are for: head acme/a, head acme/b",
    )
