"""What pytest says of conformance tests: a line before them, a section after them, nothing elsewhere."""

import subprocess
import sys

import pytest

import ftengine.testing.kit  # noqa: F401  # before pytester notes what is imported: it takes away what came after
from ftengine.plugin import API_VERSION

pytest_plugins = ["pytester"]

PLUGIN = """
from ftengine.plugin import FreezeSpec, Options, hookimpl

FTENGINE_API = (1, 0)

class Described(Options):
    pass

class Undescribed(Options):
    depth: int = 1
    width: int = 2

@hookimpl
def register_freeze_policies():
    for name, options in NAMES.items():
        yield FreezeSpec(name=name, factory="nowhere:none", summary="Freezes nothing.", options=options)

NAMES = {"second": Undescribed, "first": Undescribed, "third": Described}
"""
TESTS = """
import pytest
from ftengine.testing import PluginConformance

class TestOurs(PluginConformance):
    plugin = "ours"

    def marks(self, subject, check):
        return [pytest.mark.xfail] if check.name == "light_import" else []
"""
API = ".".join(map(str, API_VERSION))


@pytest.fixture
def checked(install_plugin, pytester, monkeypatch):
    """Runs pytest with arguments on conformance tests of a plugin ``ours``, which has three policies."""
    install_plugin("ours", PLUGIN)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(*arguments):
        pytester.makepyfile(test_ours=TESTS)
        return pytester.runpytest_inprocess("-p", "no:xdist", "-p", "no:cacheprovider", *arguments)

    return run


def test_failed_checks_are_listed_by_component(checked):
    result = checked("-k", "options_round_trip or factory_resolves")
    result.assert_outcomes(passed=1, failed=5, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines(
        [
            f"ftengine: 6 checks against plugin API {API}",
            f"*= conformance with plugin API {API} =*",
            "freeze ours/first",
            "  options_round_trip: Options are described, come back from JSON as they were, and refuse unknown keys.",
            "    expected: a description of every option",
            "    found: none of depth, width",
            "    explained in docs/conformance.md#options-round-trip",
            "  factory_resolves: *",
            "    expected: no error",
            "    found: *nowhere*",
            "    explained in docs/conformance.md#factory-resolves",
            "freeze ours/second",
            "  options_round_trip: *",
            "freeze ours/third",
            "  factory_resolves: *",
        ]
    )


def test_one_cause_of_several_failures_is_told_once(checked):
    shown = checked("-k", "third and (policy_is_pure or factory_resolves or policy_names_exist)").outlines
    first = shown.index("freeze ours/third")
    assert shown[first + 1].startswith("  factory_resolves: ")
    assert shown[first + 4 : first + 6] == [
        "    explained in docs/conformance.md#factory-resolves",
        "    the same in policy_is_pure, policy_names_exist",
    ]


def test_the_tests_come_in_the_order_of_kinds_names_and_checks(checked):
    lines = checked("--collect-only", "-q").outlines
    names = [line.split("[")[1].rstrip("]") for line in lines if "test_conformity[" in line]
    components = list(dict.fromkeys(name.partition(":")[0] for name in names))
    assert components == ["freeze ours/first", "freeze ours/second", "freeze ours/third"]
    first = [name.partition(": ")[2] for name in names if name.startswith("freeze ours/first")]
    assert first[:2] == ["light_import", "options_round_trip"]
    assert first[-1] == "run_resumes"


@pytest.mark.parametrize(
    ("wanted", "passed", "failed"),
    [("third and options", 1, 0), ("ours/second and options_round_trip", 0, 1), ("options_round_trip", 1, 2)],
)
def test_one_component_or_one_check_is_chosen_by_k(checked, wanted, passed, failed):
    result = checked("-k", wanted)
    result.assert_outcomes(passed=passed, failed=failed, deselected=result.parseoutcomes()["deselected"])
    assert ("conformance with plugin API" in result.stdout.str()) == bool(failed)


def test_a_subclass_marks_tests(checked):
    result = checked("-k", "light_import")
    assert result.parseoutcomes()["xpassed"] == 3


@pytest.mark.slow
def test_the_section_is_there_with_several_processes(install_plugin, pytester, monkeypatch, tmp_path):
    install_plugin("ours", PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site-ours"))
    pytester.makepyfile(test_ours=TESTS)
    result = pytester.runpytest_subprocess("-n", "2", "-k", "options_round_trip")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines([f"*= conformance with plugin API {API} =*", "freeze ours/first", "freeze ours/second"])


def test_other_tests_hear_nothing_of_it(pytester):
    pytester.makepyfile("def test_wrong(): assert False")
    result = pytester.runpytest_inprocess("-p", "no:xdist", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    assert "plugin API" not in result.stdout.str()


def test_it_imports_pytest_and_little_else():
    code = (
        "import pytest, sys; before = set(sys.modules); import ftengine.testing.pytest_plugin; "
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"ftengine", "ftengine.testing", "ftengine.testing.pytest_plugin"}


def test_a_class_may_be_for_some_kinds(checked, monkeypatch):
    monkeypatch.setitem(globals(), "TESTS", TESTS + '\n    kinds = ("freeze",)\n')
    result = checked("-k", "options_round_trip")
    result.assert_outcomes(passed=1, failed=2, deselected=result.parseoutcomes()["deselected"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("plugin = None", "TestOurs.plugin: expected the name of a plugin or of one component, as a text"),
        ("config = 'small.yaml'", "TestOurs.config: expected a mapping, not str"),
        ("configs = {'frist': {}}", "unknown component in configs 'frist'; did you mean 'first'?"),
        ("left_out = {'first: light_import'}", "TestOurs.left_out: expected a mapping, not set"),
        ("left_out = {'first: lightimport': 'why'}", "unknown check of a component in left_out 'first: lightimport'"),
        ("kinds = ('losses',)", "unknown kind of component in kinds 'losses'; did you mean 'loss'?"),
        ("kinds = 'loss'", "TestOurs.kinds: expected a tuple of kinds; write ('loss',)"),
        ("kinds = ('loss',)", "ours registers no components of ('loss',)"),
    ],
)
def test_a_mistake_in_the_class_is_one_failure_that_names_it(checked, monkeypatch, line, message):
    monkeypatch.setitem(globals(), "TESTS", TESTS + f"\n    {line}\n")
    result = checked()
    result.assert_outcomes(failed=1)
    assert message in result.stdout.str()
