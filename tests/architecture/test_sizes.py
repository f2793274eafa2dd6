"""A file that grows long is a sign that two rooms share a wall."""

import pytest
from source_files import ENGINE, files, label

LIMIT = 300
LIMITS = {"loop.py": 150}  # readable in one sitting


@pytest.mark.parametrize("path", files(ENGINE), ids=label)
def test_no_engine_file_is_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LIMITS.get(path.name, LIMIT)
