"""Each check of the kit is asked for by name somewhere, for a component that is wrong in just that way."""

import re
from pathlib import Path


def test_each_check_has_a_wrong_component():
    from ftengine.testing.kit import CHECKS

    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*_checks.py"))
    # Beside the kit's own order, which tests of runs know.
    assert [one.name for one in CHECKS if len(re.findall(rf'(?<!== )"{one.name}"', tests)) == 0] == []
