"""The conformance kit: whether a plugin's components do what the contracts say, before anyone uses them.

    # tests/test_conformance.py
    from ftengine.testing import PluginConformance

    class TestAcme(PluginConformance):
        plugin = "acme"

is a test for each check of each component that the plugin ``acme`` registers. ``ftengine plugins check acme`` does the
same without pytest, which only the base class needs.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftengine.testing.checks import Check
    from ftengine.testing.conformance import PluginConformance
    from ftengine.testing.subject import Subject

__all__ = ["Check", "PluginConformance", "Subject"]


def __getattr__(name: str) -> Any:
    if name == "Check":
        from ftengine.testing.checks import Check

        return Check
    if name == "PluginConformance":
        from ftengine.testing.conformance import PluginConformance

        return PluginConformance
    if name == "Subject":
        from ftengine.testing.subject import Subject

        return Subject
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
