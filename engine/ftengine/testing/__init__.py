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
    from ftengine.testing.conformance import PluginConformance

__all__ = ["PluginConformance"]


def __getattr__(name: str) -> Any:
    if name == "PluginConformance":
        from ftengine.testing.conformance import PluginConformance

        return PluginConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
