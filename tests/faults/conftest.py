"""Fixtures for the tests of faults; those of whole runs are everyone's."""

import pytest


@pytest.fixture
def trigger(tmp_path):
    """A file while which exists the components of tests/thirdparty/saboteur do harm."""
    file = tmp_path / "trigger"
    file.touch()
    return file
