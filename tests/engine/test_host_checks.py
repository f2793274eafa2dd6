"""What a plugin module is refused for, and the words it is refused with."""

import sys

import pytest
from fake_distributions import BACKBONE

from ftengine.host import Host
from ftengine.plugin import API_VERSION
from ftengine.signals import Interrupted

FINE = BACKBONE.format(name="tiny", module="acme")
IMPORTS = "from ftengine.plugin import *\n"


def load(distributions, source):
    """The record of a plugin `acme` with this source after the usual header, and that of a healthy neighbour."""
    distributions.plugin("healthy", FINE)
    distributions.plugin("acme", source)
    return outcome()


def load_module(distributions, source, module="acme_plugin", files=None):
    """The same for a module with exactly this source."""
    distributions.plugin("healthy", FINE)
    distributions.install("acme-dist", {"acme": (module, source)}, files=files)
    return outcome()


def outcome():
    host = Host.discover()
    records = {record.name: record for record in host.plugins}
    assert records["healthy"].status == "ok"
    assert "healthy/tiny" in host.names("backbone")
    if records["acme"].status != "ok":
        assert not [item for item in host.components if item.plugin == "acme"]
        assert "\n" not in records["acme"].cause
    return records["acme"]


# --- importing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero (acme_plugin.py:4)"),
        ("def broken(:", "SyntaxError: invalid syntax (acme_plugin.py:4)"),
        ("import sys; sys.exit(2)", "SystemExit: 2 (acme_plugin.py:4)"),
        ("raise BaseException('rare\\n  one')", "BaseException: rare one (acme_plugin.py:4)"),
        ("raise OSError", "OSError (acme_plugin.py:4)"),
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("import json; json.loads('{')", "JSONDecodeError: Expecting property name"),
    ],
)
def test_whatever_an_import_raises_is_kept_as_the_cause(distributions, source, cause):
    record = load(distributions, source)
    assert record.status == "broken"
    assert record.cause.startswith(cause)
    assert record.cause.endswith("(acme_plugin.py:4)"), "the last place in the plugin's own file"


def test_the_place_is_the_last_one_inside_the_plugins_package(distributions):
    files = {"acme/__init__.py": "", "acme/inner.py": "\n\ndef work():\n    import json\n    json.loads('{')\n"}
    record = load_module(distributions, "from acme.inner import work\nwork()\n", module="acme.plugin", files=files)
    assert record.cause.endswith("(acme/inner.py:5)")


def test_a_module_that_is_not_there_is_broken(distributions):
    distributions.plugin("healthy", FINE)
    distributions.install("acme-dist", {}, entry_points="[ftengine]\nacme = no_such_acme.plugin")
    assert outcome().cause == "ModuleNotFoundError: No module named 'no_such_acme'"


def test_an_interrupt_while_importing_is_not_swallowed(distributions):
    distributions.plugin("acme", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Host.discover()


def test_a_signal_while_importing_is_not_the_plugins_fault(distributions):
    distributions.plugin("acme", "from ftengine.signals import Interrupted\nraise Interrupted('SIGTERM')")
    with pytest.raises(Interrupted, match="SIGTERM"):
        Host.discover()


@pytest.mark.parametrize(
    ("entry_point", "cause"),
    [
        ("acme = acme_plugin:Plugin", "the entry point must name a module, as in 'acme_vision.plugin', not"),
        ("acme vision = acme_plugin", "the entry point name 'acme vision' must consist of letters"),
        ("acme/vision = acme_plugin", "the entry point name 'acme/vision' must consist of letters"),
    ],
)
def test_entry_points_are_checked(distributions, entry_point, cause):
    distributions.install("acme-dist", {}, files={"acme_plugin.py": FINE}, entry_points=f"[ftengine]\n{entry_point}")
    record = next(record for record in Host.discover().plugins if record.distribution == "acme-dist")
    assert record.status == "broken"
    assert record.cause.startswith(cause)


def test_what_a_plugin_prints_does_not_reach_standard_output(distributions, capsys):
    load(distributions, "print('hello')\n" + FINE)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello" in captured.err


def test_importing_torch_gets_a_note(distributions, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    distributions.install("torch-stand-in", {}, files={"torch.py": ""})
    record = load(distributions, "import torch\n" + FINE)
    assert record.status == "ok"
    assert record.notes[0].startswith("importing acme_plugin imports torch")
    neighbour = next(record for record in Host.discover().plugins if record.name == "healthy")
    assert neighbour.notes == ()


# --- the API version -------------------------------------------------------------------------------------------

MAJOR, MINOR = API_VERSION


@pytest.mark.parametrize(
    ("api", "status", "cause"),
    [
        (f"FTENGINE_API = ({MAJOR}, {MINOR})", "ok", None),
        ("", "broken", f"the module has no FTENGINE_API; write FTENGINE_API = ({MAJOR}, {MINOR})"),
        ("FTENGINE_API = '1.0'", "broken", "FTENGINE_API is '1.0'; expected two integers (major, minor)"),
        ("FTENGINE_API = (1, 0, 0)", "broken", "FTENGINE_API is (1, 0, 0); expected two integers"),
        ("FTENGINE_API = (True, 0)", "broken", "FTENGINE_API is (True, 0); expected two integers"),
        (
            f"FTENGINE_API = ({MAJOR + 1}, 0)",
            "incompatible",
            f"made for plugin API {MAJOR + 1}.0; this ftengine has {MAJOR}.{MINOR}, and the major versions differ",
        ),
        (
            f"FTENGINE_API = ({MAJOR - 1}, 7)",
            "incompatible",
            f"made for plugin API {MAJOR - 1}.7; this ftengine has {MAJOR}.{MINOR}, and the major versions differ",
        ),
        (
            f"FTENGINE_API = ({MAJOR}, {MINOR + 1})",
            "incompatible",
            f"made for plugin API {MAJOR}.{MINOR + 1}; this ftengine has only {MAJOR}.{MINOR}: upgrade ftengine",
        ),
    ],
)
def test_the_api_version_decides(distributions, api, status, cause):
    record = load_module(distributions, IMPORTS + api + "\n" + FINE)
    assert record.status == status
    assert record.cause is None if cause is None else record.cause.startswith(cause)


def test_an_older_minor_version_is_fine(distributions, monkeypatch):
    monkeypatch.setattr("ftengine.host_checks.API_VERSION", (MAJOR, MINOR + 3))
    assert load(distributions, FINE).status == "ok"


@pytest.mark.parametrize("module", ["acme_plugin", "acme.plugin", "acme"])
@pytest.mark.parametrize("statement", ["FTENGINE_API = (9, 0)", "FTENGINE_API: tuple[int, int] = (9, 0)"])
def test_a_newer_plugin_that_cannot_even_be_imported_is_incompatible(distributions, module, statement):
    files = {} if module == "acme_plugin" else {"acme/__init__.py": ""}
    source = f"from ftengine.plugin import SpecOfTheFuture\n{statement}\n"
    if module == "acme":
        files = {"acme/__init__.py": source}
        distributions.plugin("healthy", FINE)
        distributions.install("acme-dist", {}, files=files, entry_points="[ftengine]\nacme = acme")
        record = outcome()
    else:
        record = load_module(distributions, source, module=module, files=files)
    assert record.status == "incompatible"
    assert record.cause.startswith("made for plugin API 9.0; this ftengine has")
    assert "ImportError: cannot import name 'SpecOfTheFuture'" in record.cause


def test_an_import_error_of_a_plugin_for_this_version_stays_broken(distributions):
    record = load(distributions, "from ftengine.plugin import NothingOfTheKind")
    assert record.status == "broken"
    assert record.cause.startswith("ImportError: cannot import name 'NothingOfTheKind'")


def test_an_api_version_that_is_computed_cannot_be_read_from_a_failed_import(distributions):
    record = load_module(distributions, "FTENGINE_API = (3 ** 2, 0)\nraise OSError('disk')")
    assert (record.status, record.cause) == ("broken", "OSError: disk (acme_plugin.py:2)")


# --- hooks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (
            "@hookimpl\ndef register_backbone(): return []",
            "'register_backbone' is marked with @hookimpl but is no hook; did you mean 'register_backbones'?",
        ),
        ("@hookimpl\ndef zzz(): return []", "'zzz' is marked with @hookimpl but is no hook; hooks: checkpoint_saved, "),
        (
            "@hookimpl(specname='register_hats')\ndef make(): return []",
            "'register_hats' is marked with @hookimpl but is no hook; did you mean 'register_heads'?",
        ),
        ("def register_heads(): return []", "'register_heads' is a hook but is not marked with @hookimpl"),
        (
            "def register_head(): return []",
            "'register_head' is no hook and is not marked with @hookimpl; did you mean 'register_heads'?",
        ),
        (
            "def metric_logged(run): pass",
            "'metric_logged' is no hook and is not marked with @hookimpl; did you mean 'metrics_logged'?",
        ),
        ("def register_codecs_and_so_on(): pass", "'register_codecs_and_so_on' looks like a hook, but there is none"),
        (
            "@hookimpl\ndef metrics_logged(run, vals): pass",
            "'metrics_logged' takes 'vals', which the hook does not give; did you mean 'values'?",
        ),
        (
            "@hookimpl\ndef run_started(trainer): pass",
            "'run_started' takes 'trainer', which the hook does not give; the hook is run_started(run)",
        ),
        (
            "@hookimpl\ndef register_heads(config): return []",
            "'register_heads' takes 'config', which the hook does not give; the hook is register_heads()",
        ),
        (
            "@hookimpl\ndef run_started(run=None): pass",
            "'run_started' must take 'run' as a plain argument without a default",
        ),
        ("@hookimpl\ndef run_started(*, run): pass", "'run_started' must take 'run' as a plain argument"),
        ("@hookimpl\ndef run_started(**kwargs): pass", "'run_started' takes '**kwargs', which the hook does not give"),
        ("@hookimpl\nasync def run_started(run): pass", "'run_started' is async; hooks are plain functions"),
        ("@hookimpl\nasync def register_heads(): yield 1", "'register_heads' is async; hooks are plain functions"),
        ("@hookimpl(wrapper=True)\ndef register_heads(): return (yield)", "'register_heads' is a hook wrapper"),
        ("@hookimpl(hookwrapper=True)\ndef run_started(run): yield", "'run_started' is a hook wrapper"),
    ],
)
def test_hooks_that_would_be_ignored_or_fail_are_refused(distributions, source, cause):
    record = load(distributions, source)
    assert record.status == "broken"
    assert record.cause.startswith(cause)


@pytest.mark.parametrize(
    "source",
    [
        "@hookimpl\ndef run_started(): pass",
        "@hookimpl(specname='run_started')\ndef my_observer(run): pass",
        "@hookimpl(optionalhook=True)\ndef hook_of_the_future(x): pass",
        "def _register_helper(): pass\ndef make_heads(): pass",
        "@hookimpl(tryfirst=True)\ndef register_heads(): return ()",
        "from atexit import register as register_at_exit\nfrom helpers_of_acme import register_opener",
    ],
)
def test_hooks_and_helpers_that_are_fine(distributions, source):
    distributions.install("helpers", {}, files={"helpers_of_acme.py": "def register_opener(): pass"})
    record = load(distributions, source)
    assert (record.status, record.cause) == ("ok", None)


def test_all_problems_of_a_module_are_told_together(distributions):
    cause = load(distributions, "@hookimpl\ndef register_head(): pass\ndef run_finished(): pass").cause
    assert "'register_head' is marked" in cause
    assert "; 'run_finished' is a hook but" in cause


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("pass", "'register_backbones' returned None; expected an iterable of BackboneSpec"),
        ("return 3", "'register_backbones' returned 3; expected an iterable of BackboneSpec"),
        (
            "return BackboneSpec(name='a', factory='m:f', summary='S.')",
            "'register_backbones' returned one BackboneSpec; yield it, or return a list of it",
        ),
        (
            "yield FreezeSpec(name='a', factory='m:f', summary='S.')",
            "'register_backbones' returned the FreezeSpec 'a', which 'register_freeze_policies' returns; expected each "
            "item to be a BackboneSpec",
        ),
        ("return ['tiny']", "'register_backbones' returned 'tiny'; expected each item to be a BackboneSpec"),
        ("yield BackboneSpec(name='a')", "TypeError: "),
        ("yield\n    1 / 0", "ZeroDivisionError: division by zero (acme_plugin.py:7)"),
    ],
)
def test_what_hooks_return_is_checked(distributions, body, cause):
    record = load(distributions, f"@hookimpl\ndef register_backbones():\n    {body}")
    assert record.status == "broken"
    assert record.cause.startswith(cause)
