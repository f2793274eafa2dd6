"""Small configs, and what reading them gives: a plan, or mistakes."""

import pytest

from ftengine.errors import ConfigError
from ftengine.resolve import load

DIGITS = """\
task: classification
data: digits
backbone: {name: resnet18, weights: none}
"""
JOINT = """\
data: {format: digits, targets: [value, ink]}
backbone: {name: resnet18, weights: none}
tasks:
  digit: {task: classification}
  amount: {task: regression, weight: 0.5}
"""


@pytest.fixture
def plan(tmp_path):
    def make(text=DIGITS, *assignments, task=None):
        file = tmp_path / "run.yaml"
        file.write_text(text)
        return load(file, assignments, task)

    return make


@pytest.fixture
def refused(plan):
    """The problems of a config that is wrong, as (line, path, message)."""

    def make(*arguments, **options):
        with pytest.raises(ConfigError) as error:
            plan(*arguments, **options)
        return [(problem.line, problem.path, problem.message) for problem in error.value.problems]

    return make


@pytest.fixture
def csv(tmp_path):
    (tmp_path / "a.csv").write_text("image,label\n")
    return f"format: csv, root: {tmp_path}, train: a.csv"
