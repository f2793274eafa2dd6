"""Components that are wrong in one way, installed for a test."""

import importlib
import sys
import textwrap

import pytest

SPECS = {
    "task": ("register_tasks", "TaskSpec"),
    "backbone": ("register_backbones", "BackboneSpec"),
    "head": ("register_heads", "HeadSpec"),
    "loss": ("register_losses", "LossSpec"),
    "metric": ("register_metrics", "MetricSpec"),
    "freeze": ("register_freeze_policies", "FreezeSpec"),
    "dataset": ("register_datasets", "DatasetSpec"),
    "regularizer": ("register_regularizers", "RegularizerSpec"),
    "adapter": ("register_adapters", "AdapterSpec"),
    "strategy": ("register_strategies", "StrategySpec"),
}
PLUGIN = """\
from pydantic import Field
from ftengine.plugin import *

FTENGINE_API = (1, 0)

{options}

@hookimpl
def {hook}():
    yield {spec}(name="thing", {factory}summary="A thing.", {more})
"""


@pytest.fixture
def component(tmp_path, install_plugin, monkeypatch):
    """Installs a plugin ``wrong`` with one component, ``wrong/thing``; returns the subject that the kit checks.

    `code` defines the factory, ``thing(options, context)``, in a module of its own. `more`: further arguments of the
    spec; `options`: source before the hook, such as a class of options; `changes` are laid over the small run.
    """
    from ftengine.testing.subject import subjects

    def make(kind, code="", more="", options="", changes=None):
        hook, spec = SPECS[kind]
        factory = "" if kind == "strategy" else 'factory="wrong_models:thing", '
        install_plugin(
            "wrong", PLUGIN.format(hook=hook, spec=spec, factory=factory, more=more, options=textwrap.dedent(options))
        )
        (tmp_path / "site-wrong" / "wrong_models.py").write_text(textwrap.dedent(code))
        importlib.invalidate_caches()
        # Its hooks may bring others; what learns from several fields is checked with the first.
        (subject,) = [one for one in subjects("wrong", changes) if one.kind == kind and not one.further]
        return subject

    yield make
    sys.modules.pop("wrong_models", None)


@pytest.fixture
def result(component):
    """What the check of a name says of a component made as by `component`."""
    from ftengine.testing.kit import find_check, run_check

    def run(check, kind, code="", more="", options="", changes=None):
        return run_check(find_check(check), component(kind, code, more, options, changes))

    return run
