"""Fixtures for the tests of the engine."""

from fake_distributions import distributions

__all__ = ["distributions"]
