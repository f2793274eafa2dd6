"""Finding plugins, keeping them apart, and asking for components by name."""

import importlib.metadata
import sys

import pytest
from fake_distributions import BACKBONE, HEADER, Distributions

from ftengine.errors import FtengineError
from ftengine.host import Component, Host, LookupProblem, load_factory
from ftengine.plugin import BackboneSpec
from ftengine.signals import Interrupted


def record(host, name, distribution=None):
    found = [item for item in host.plugins if item.name == name and distribution in (None, item.distribution)]
    assert len(found) == 1, found
    return found[0]


def problem(host, kind, name, task=None):
    with pytest.raises(LookupProblem) as error:
        host.find(kind, name, task)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- discovery -------------------------------------------------------------------------------------------------


def test_built_in_components_have_bare_names_and_third_parties_prefixed_ones(distributions):
    distributions.plugin("acme", BACKBONE.format(name="tiny", module="acme"), version="2.1")
    host = Host.discover()
    assert record(host, "nets").builtin
    acme = record(host, "acme")
    assert (acme.status, acme.cause, acme.builtin, acme.notes) == ("ok", None, False, ())
    assert (acme.distribution, acme.version, acme.module) == ("acme-dist", "2.1", "acme_plugin")
    assert host.names("backbone") == ["acme/tiny", "resnet18", "resnet50"]
    component = host.find("backbone", "acme/tiny")
    assert (component.plugin, component.kind, component.task, component.spec.name) == ("acme", "backbone", None, "tiny")


def test_names_are_those_of_one_task_for_kinds_that_have_one(distributions):
    host = Host.discover()
    assert host.names("loss", "classification") == ["cross_entropy"]
    assert host.names("loss") == ["cross_entropy", "mse"]
    assert host.names("backbone", "classification") == ["resnet18", "resnet50"]
    assert host.names("task") == ["classification", "regression"]
    with pytest.raises(ValueError, match="unknown kind of component 'looss'; did you mean 'loss'"):
        host.names("looss")


def test_factories_are_not_imported_by_discovery(distributions):
    distributions.plugin(
        "lazy", BACKBONE.format(name="tiny", module="lazy"), files={"lazy_models.py": "raise RuntimeError"}
    )
    assert record(Host.discover(), "lazy").status == "ok"
    assert "lazy_models" not in sys.modules


def test_a_distribution_that_is_twice_on_the_path_counts_once(distributions):
    for _ in range(2):
        distributions.plugin("twice", BACKBONE.format(name="tiny", module="twice"))
    assert record(Host.discover(), "twice").status == "ok"


def test_a_distribution_that_differs_in_spelling_counts_once(distributions):
    source = HEADER + BACKBONE.format(name="tiny", module="twice")
    distributions.install("Acme.Vision", {"twice": ("twice_plugin", source)}, version="1.0")
    distributions.install("acme-vision", {"twice": ("twice_plugin", source)}, version="1.1")
    twice = record(Host.discover(), "twice")
    assert (twice.status, twice.version) == ("ok", "1.1"), "the first on the path"


@pytest.mark.parametrize("damaged", ["[ftengine]\nno equals sign", "[ftengine]\n= acme.plugin\nx"])
def test_a_damaged_entry_point_list_hides_no_other_plugin(distributions, damaged):
    distributions.plugin("acme", BACKBONE.format(name="tiny", module="acme"))
    distributions.install("damaged-dist", {}, entry_points=damaged)
    host = Host.discover()
    assert record(host, "acme").status == "ok"
    assert record(host, "nets").status == "ok"
    assert record(host, "damaged-dist").status == "broken"
    assert "its entry_points.txt cannot be read" in record(host, "damaged-dist").cause


def test_a_damaged_list_of_a_distribution_without_plugins_is_not_reported(distributions):
    distributions.install("other-dist", {}, entry_points="[console_scripts]\nno equals sign")
    with pytest.raises(TypeError):
        importlib.metadata.entry_points(group="ftengine")
    host = Host.discover()
    assert "other-dist" not in {item.name for item in host.plugins}
    assert record(host, "nets").status == "ok"


# --- disabled, conflicts ---------------------------------------------------------------------------------------


def test_disabled_plugins_are_not_imported(distributions, monkeypatch):
    for name in ("one", "two", "three"):
        distributions.plugin(name, BACKBONE.format(name="tiny", module=name))
    monkeypatch.setenv("FTENGINE_DISABLE_PLUGINS", "one, two ,")
    host = Host.discover(disable=["three"])
    assert record(host, "one").cause == "disabled by the environment variable FTENGINE_DISABLE_PLUGINS"
    assert record(host, "two").status == "disabled"
    assert record(host, "three").cause == "disabled by the config (plugins.disable)"
    assert {"one_plugin", "two_plugin", "three_plugin"}.isdisjoint(sys.modules)
    assert host.names("backbone") == ["resnet18", "resnet50"]
    assert "the plugin 'one' (one-dist 1.0) is disabled" in problem(host, "backbone", "one/tiny")


def test_two_distributions_with_one_entry_point_name_are_both_refused(distributions):
    for name, module in (("first-dist", "first_plugin"), ("second-dist", "second_plugin")):
        distributions.install(name, {"acme": (module, HEADER + BACKBONE.format(name="tiny", module="acme"))})
    host = Host.discover()
    assert {(item.distribution, item.status) for item in host.plugins if item.name == "acme"} == {
        ("first-dist", "conflict"),
        ("second-dist", "conflict"),
    }
    assert "second-dist 1.0 (second_plugin) claims the name 'acme' too" in record(host, "acme", "first-dist").cause
    assert "first_plugin" not in sys.modules
    assert "is refused for a conflict" in problem(host, "backbone", "acme/tiny")


def test_a_built_in_plugin_keeps_its_name(distributions):
    distributions.install("rival-dist", {"nets": ("rival_plugin", HEADER + BACKBONE.format(name="x", module="rival"))})
    host = Host.discover()
    assert host.find("backbone", "resnet18").plugin == "nets"
    assert record(host, "nets", "ftengine").status == "ok"
    assert "rival-dist 1.0 (rival_plugin) claims this name too" in record(host, "nets", "ftengine").notes[0]
    rival = record(host, "nets", "rival-dist")
    assert rival.status == "conflict"
    assert "the built-in plugin 'nets' has this name" in rival.cause
    assert host.require(["nets"]) == []


def test_a_disabled_built_in_plugin_does_not_hand_its_name_on(distributions, monkeypatch):
    distributions.install("rival-dist", {"nets": ("rival_plugin", HEADER + BACKBONE.format(name="x", module="rival"))})
    monkeypatch.setenv("FTENGINE_DISABLE_PLUGINS", "nets")
    host = Host.discover()
    assert {item.status for item in host.plugins if item.name == "nets"} == {"disabled"}
    assert host.names("backbone") == []


def test_one_module_under_two_names_is_two_plugins(distributions):
    source = HEADER + BACKBONE.format(name="tiny", module="shared")
    distributions.install("shared-dist", {"a": ("shared_plugin", source), "b": ("shared_plugin", source)})
    assert {"a/tiny", "b/tiny"} <= set(Host.discover().names("backbone"))


# --- looking up ------------------------------------------------------------------------------------------------


def test_an_unknown_name_gets_the_nearest_or_the_list(distributions):
    host = Host.discover()
    assert problem(host, "backbone", "resnet81") == "unknown backbone 'resnet81'; did you mean 'resnet18'?"
    assert problem(host, "head", "zzz", "regression") == "unknown head 'zzz'; heads: linear"
    assert problem(host, "freeze", "all") == "unknown freeze policy 'all'; freeze policies: none"


def test_a_component_of_another_task_is_named_with_the_choices(distributions):
    assert problem(Host.discover(), "loss", "mse", "classification") == (
        "'mse' is a loss of the task 'regression'; here the task is 'classification', losses of 'classification': "
        "cross_entropy"
    )


def test_a_name_within_several_tasks_needs_the_task(distributions):
    host = Host.discover()
    assert host.find("head", "linear", "regression").task == "regression"
    several = "'linear' is the name of heads of several tasks: classification, regression"
    assert problem(host, "head", "linear") == several


def test_a_component_of_another_kind_is_named(distributions):
    text = problem(Host.discover(), "head", "resnet18", "regression")
    assert text == "'resnet18' is a backbone, not a head; heads: linear"


def test_a_bare_name_of_a_third_party_gets_the_full_one(distributions):
    distributions.plugin("acme", BACKBONE.format(name="tiny", module="acme"))
    host = Host.discover()
    assert problem(host, "backbone", "tiny") == "unknown backbone 'tiny'; did you mean 'acme/tiny'?"
    assert problem(host, "backbone", "acme/tinny") == "unknown backbone 'acme/tinny'; did you mean 'acme/tiny'?"
    assert "plugin 'acmee'; did you mean 'acme'? (not installed)" in problem(host, "backbone", "acmee/tiny")
    assert "named without their plugin: 'resnet18'" in problem(host, "backbone", "nets/resnet18")


def test_a_broken_plugin_is_named_with_its_cause(distributions):
    distributions.plugin("acme", "1 / 0")
    text = problem(Host.discover(), "backbone", "acme/tiny")
    assert "the plugin 'acme' (acme-dist 1.0) is broken: ZeroDivisionError: division by zero (acme_plugin.py:" in text


def test_a_missing_built_in_component_names_the_built_in_plugin_that_is_off(distributions, monkeypatch):
    monkeypatch.setenv("FTENGINE_DISABLE_PLUGINS", "nets")
    text = problem(Host.discover(), "backbone", "resnet18")
    assert "the plugin 'nets' (ftengine 0.0) is disabled: disabled by the environment variable" in text


def test_missing_requirements_come_with_the_install_command(distributions):
    distributions.plugin(
        "acme",
        """
        @hookimpl
        def register_backbones():
            yield BackboneSpec(name="ok", factory="m:f", summary="S.", requires=("pydantic",))
            yield BackboneSpec(name="one", factory="m:f", summary="S.", requires=("pydantic", "no-such-dist"))
            yield BackboneSpec(name="two", factory="m:f", summary="S.", requires=("no-such-dist", "nor_this"))
        """,
    )
    host = Host.discover()
    assert host.find("backbone", "acme/ok").spec.requires == ("pydantic",)
    assert problem(host, "backbone", "acme/one") == (
        "the backbone 'acme/one' needs a package that is not installed: no-such-dist; install with: "
        "pip install no-such-dist"
    )
    assert problem(host, "backbone", "acme/two").endswith("pip install no-such-dist nor_this")


def test_required_plugins_that_are_absent_or_broken_are_named(distributions):
    distributions.plugin("fine", BACKBONE.format(name="tiny", module="fine"))
    distributions.plugin("faulty", "raise OSError('disk')")
    messages = Host.discover().require(["fine", "nets", "fien", "faulty"])
    assert messages[0] == "unknown plugin 'fien'; did you mean 'fine'? (not installed)"
    assert messages[1].startswith("the plugin 'faulty' (faulty-dist 1.0) is broken: OSError: disk (faulty_plugin.py:")
    assert len(messages) == 2


# --- factories -------------------------------------------------------------------------------------------------


def component(factory):
    spec = BackboneSpec(name="tiny", factory=factory, summary="S.")
    return Component("acme/tiny", "backbone", None, "acme", spec)


def test_a_factory_is_imported_on_demand(distributions):
    distributions.install("d", {}, files={"fac.py": "class A:\n    def make(): pass\ndef tiny(): pass\nvalue = 3"})
    assert load_factory(component("fac:tiny")).__name__ == "tiny"
    assert load_factory(component("fac:A.make")).__name__ == "make"


def test_a_signal_while_a_factory_is_imported_is_not_its_fault(distributions):
    source = "from ftengine.signals import Interrupted\nraise Interrupted('SIGTERM')"
    distributions.install("d", {}, files={"fac.py": source})
    with pytest.raises(Interrupted, match="SIGTERM"):
        load_factory(component("fac:tiny"))


@pytest.mark.parametrize(
    ("factory", "source", "message"),
    [
        ("fac:tinny", "def tiny(): pass", "its factory 'fac:tinny' does not exist; did you mean 'tiny'?"),
        ("fac:value", "value = 3", "its factory 'fac:value' is a int; expected a callable"),
        ("fac:f", "import nowhere_at_all", "failed: ModuleNotFoundError: No module named 'nowhere_at_all' (fac.py:1)"),
        ("fac:f", "import sys\nsys.exit(3)", "importing fac for its factory failed: SystemExit: 3 (fac.py:2)"),
        ("no_such_fac:f", "", "failed: ModuleNotFoundError: No module named 'no_such_fac'"),
    ],
)
def test_a_factory_that_cannot_be_had_names_component_module_and_cause(distributions, factory, source, message):
    distributions.install("d", {}, files={"fac.py": source})
    with pytest.raises(FtengineError) as error:
        load_factory(component(factory))
    assert str(error.value).startswith("backbone 'acme/tiny' (plugin acme): ")
    assert message in str(error.value)


def test_the_nearest_module_of_a_package_is_offered(distributions):
    distributions.install("d", {}, files={"fac/__init__.py": "", "fac/training.py": "def tiny(): pass"})
    with pytest.raises(FtengineError, match=r"No module named 'fac.trainin'; did you mean 'fac.training'\?$"):
        load_factory(component("fac.trainin:tiny"))


# --- observers -------------------------------------------------------------------------------------------------

OBSERVER = """
seen = []
@hookimpl
def metrics_logged(step, values):
    seen.append((step, values))
"""


def test_each_observer_is_told_and_one_that_failed_is_left_out(distributions):
    distributions.plugin("a", "@hookimpl\ndef metrics_logged(run):\n    raise ValueError(run)")
    distributions.plugin("b", OBSERVER)
    distributions.plugin("c", "@hookimpl\ndef metrics_logged():\n    raise SystemExit(4)")
    host = Host.discover()
    failures = host.notify("metrics_logged", run="R", step=1, values={"loss": 2.0})
    assert [(name, type(error), str(error)) for name, error in failures] == [
        ("a", ValueError, "R"),
        ("c", RuntimeError, "the hook called sys.exit(4)"),
    ]
    assert host.notify("metrics_logged", run="R", step=2, values={}) == []
    assert sys.modules["b_plugin"].seen == [(1, {"loss": 2.0}), (2, {})]
    assert host.notify("run_finished", run="R", outcome="finished") == []


def test_a_run_may_be_observed_by_one_plugin_alone(distributions):
    distributions.plugin("a", OBSERVER)
    distributions.plugin("b", OBSERVER)
    distributions.plugin("c", "")
    host = Host.discover()
    for name in ("b", "c", "none"):
        assert host.observed_by(name).notify("metrics_logged", run="R", step=1, values={}) == []
    assert sys.modules["a_plugin"].seen == []
    assert sys.modules["b_plugin"].seen == [(1, {})]
    assert host.observed_by("b").plugins == host.plugins
    assert host.notify("metrics_logged", run="R", step=2, values={}) == []
    assert sys.modules["a_plugin"].seen == [(2, {})]


def test_an_interrupt_in_an_observer_is_not_swallowed(distributions):
    distributions.plugin("a", "@hookimpl\ndef run_started(run):\n    raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Host.discover().notify("run_started", run="R")


@pytest.mark.parametrize("hook", ["metric_logged", "register_heads"])
def test_only_observer_hooks_can_be_notified(distributions, hook):
    with pytest.raises(ValueError, match="unknown observer hook"):
        Host.discover().notify(hook)


def test_fixture_leaves_no_modules_behind(tmp_path, monkeypatch):
    fake = Distributions(tmp_path, monkeypatch)
    fake.plugin("gone", BACKBONE.format(name="tiny", module="gone"))
    Host.discover(disable=["torchvision", "timm", "classification", "regression", "datasets", "freeze"])
    assert "gone_plugin" in sys.modules
    fake.remove_modules()
    assert "gone_plugin" not in sys.modules
