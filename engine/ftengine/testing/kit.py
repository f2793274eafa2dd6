"""The whole kit: importing this module registers every check, in the order in which they run."""

from ftengine.testing import components, metrics  # noqa: F401
from ftengine.testing.checks import CHECKS, Check, checks_for, find_check, run_check, run_checks

__all__ = ["CHECKS", "Check", "checks_for", "find_check", "run_check", "run_checks"]
