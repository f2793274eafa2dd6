"""What pytest says of conformance tests beside their failures.

Pytest loads this wherever ftengine is installed, also for tests that have nothing to do with it: so it imports pytest
and nothing of ftengine, and is silent where there are no conformance tests.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence

import pytest

FAILED = pytest.StashKey[dict[str, str]]()
"""What a conformance test leaves with its item when it fails, for the summary: a Result's texts."""

ATTRIBUTE = "ftengine_conformance"
"""Under this name a test's report has them: reports, and not items, come from the processes of pytest-xdist."""


def pytest_report_collectionfinish(items: Sequence[pytest.Item]) -> list[str]:
    """How many checks there are, and against which version of the interface."""
    conformance = sys.modules.get("ftengine.testing.conformance")
    if conformance is None:
        return []
    own = [item for item in items if issubclass(getattr(item, "cls", None) or object, conformance.PluginConformance)]
    if not own:
        return []
    from ftengine.plugin import API_VERSION

    return [f"ftengine: {len(own)} checks against plugin API {'.'.join(map(str, API_VERSION))}"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and report.failed and FAILED in item.stash:
        setattr(report, ATTRIBUTE, item.stash[FAILED])
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The failed checks, by component: what was expected, what was found, and where that is explained."""
    failed = [getattr(report, ATTRIBUTE, None) for report in terminalreporter.getreports("failed")]
    by_component: dict[str, list[dict[str, str]]] = {}
    for one in failed:
        if one is not None:
            by_component.setdefault(one["component"], []).append(one)
    if not by_component:
        return
    api = next(iter(by_component.values()))[0]["api"]
    terminalreporter.section(f"conformance with plugin API {api}")
    for component in sorted(by_component):
        terminalreporter.write_line(component, bold=True)
        alike: dict[tuple[str, str], list[dict[str, str]]] = {}
        for one in by_component[component]:
            alike.setdefault((one["expected"], one["found"]), []).append(one)
        for (expected, found), (one, *others) in alike.items():
            terminalreporter.write_line(f"  {one['check']}: {one['summary']}")
            terminalreporter.write_line(f"    expected: {expected}")
            terminalreporter.write_line(f"    found: {found}".replace("\n", "\n      "))
            terminalreporter.write_line(f"    explained in {one['page']}")
            if others:
                terminalreporter.write_line(f"    the same in {', '.join(other['check'] for other in others)}")
