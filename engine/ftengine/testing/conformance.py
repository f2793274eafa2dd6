"""The base class of a plugin's own conformance tests, for pytest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import pytest

from ftengine.errors import FtengineError, unknown
from ftengine.host import KINDS
from ftengine.plugin import API_VERSION
from ftengine.testing.kit import Check, checks_for, run_check
from ftengine.testing.pytest_plugin import FAILED
from ftengine.testing.subject import Subject, subjects


class PluginConformance:
    """A test for each check of each component of a plugin; a subclass, called Test…, names the plugin.

    `plugin`: the entry point, or the full name of one component. `config`: laid over the config of the small run in
    which each component is checked: a dataset that its heads can learn from, options that must be given. `configs`: the
    same for single components, by ``name`` or ``kind name``. `left_out`: checks that do not hold of a component, as
    ``{"name: check": "the reason"}``; they are listed as skipped, with that reason. `kinds`: only the components of
    these kinds, where a `config` is meant for them; of every kind if it is empty.

    A test is called ``loss acme/tempered of classification: options_round_trip``, so that ``pytest -k tempered`` checks
    one component, ``pytest -k options_round_trip`` makes one check, and ``pytest -k "tempered and run"`` both.
    """

    plugin: ClassVar[str]
    config: ClassVar[Mapping[str, Any]] = {}
    configs: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    left_out: ClassVar[Mapping[str, str]] = {}
    kinds: ClassVar[tuple[str, ...]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "conformity" not in metafunc.fixturenames:
            return
        try:
            metafunc.parametrize("conformity", self._cases())
        except FtengineError as error:
            metafunc.parametrize("conformity", [pytest.param(error, id="loads")])

    def _cases(self) -> list[Any]:
        cases, known = [], set()
        self._must_be_written_well()
        # Not as the plugin lists them: pytest-xdist wants the same order in all of its processes.
        for subject in sorted(subjects(self.plugin, self.config, self.configs), key=_place):
            if self.kinds and subject.kind not in self.kinds:
                continue
            for check in checks_for(subject.kind):
                keys = [f"{key}: {check.name}" for key in subject.keys]
                known.update(keys)
                reasons = [self.left_out[key] for key in keys if key in self.left_out]
                marks = [pytest.mark.skip(reason=reasons[0])] if reasons else [*self.marks(subject, check)]
                cases.append(pytest.param((subject, check), id=f"{subject.name}: {check.name}", marks=marks))
        for key in self.left_out:
            if key not in known:
                raise FtengineError(unknown("check of a component in left_out", key, known))
        if not cases:
            raise FtengineError(f"{self.plugin} registers no components" + (f" of {self.kinds}" if self.kinds else ""))
        return cases

    def _must_be_written_well(self) -> None:
        name = type(self).__name__
        if not isinstance(getattr(self, "plugin", None), str):
            raise FtengineError(f"{name}.plugin: expected the name of a plugin or of one component, as a text")
        for attribute in ("config", "configs", "left_out"):
            value = getattr(self, attribute)
            if not isinstance(value, Mapping):
                raise FtengineError(f"{name}.{attribute}: expected a mapping, not {type(value).__name__}")
        if isinstance(self.kinds, str):
            raise FtengineError(f"{name}.kinds: expected a tuple of kinds; write ({self.kinds!r},)")
        for kind in self.kinds:
            if kind not in KINDS:
                raise FtengineError(unknown("kind of component in kinds", kind, KINDS))

    def marks(self, subject: Subject, check: Check) -> Iterable[pytest.MarkDecorator]:
        """The marks of one test, none here: a subclass may say that some of them are slow."""
        return ()

    def test_conformity(
        self, conformity: tuple[Subject, Check] | FtengineError, request: pytest.FixtureRequest
    ) -> None:
        if isinstance(conformity, FtengineError):
            pytest.fail(str(conformity), pytrace=False)
        subject, check = conformity
        result = run_check(check, subject)
        if result.status == "left out":
            pytest.skip(result.reason)
        if result.status == "failed":
            request.node.stash[FAILED] = {
                "component": result.component,
                "check": check.name,
                "summary": check.summary,
                "expected": result.expected,
                "found": result.found,
                "page": check.page,
                "api": ".".join(map(str, API_VERSION)),
            }
            pytest.fail(result.text, pytrace=False)


def _place(subject: Subject) -> tuple[int, str]:
    return KINDS.index(subject.kind), subject.name
