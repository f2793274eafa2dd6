"""Fixtures for the tests of the engine."""

from config_files import csv, plan, refused
from fake_distributions import distributions

__all__ = ["csv", "distributions", "plan", "refused"]
