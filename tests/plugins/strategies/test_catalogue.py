"""Each strategy of the catalogue is a config that resolves, and does what its name says."""

import pytest

from ftengine.host import Host
from ftengine.resolve import load

STRATEGIES = {component.name: component for component in Host.discover().select("strategy")}

CONFIG = """\
task: classification
data: digits
backbone: {name: resnet18, weights: none}
"""


@pytest.fixture
def plan(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    return lambda *assignments: load(file, assignments)


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_resolves_and_says_what_it_is_for(plan, name):
    made = plan(f"strategy={name}")
    assert made.strategy == name
    spec = STRATEGIES[name].spec
    assert spec.when
    assert spec.summary.endswith((".", ")."))
    assert spec.settings["freeze"] in ("none", made.freeze.component.name) or (
        spec.settings["freeze"]["name"] == made.freeze.component.name
    )


def test_no_two_are_the_same(plan):
    made = {name: plan(f"strategy={name}").resolved() for name in STRATEGIES}
    names = list(made)
    for index, name in enumerate(names):
        for other in names[index + 1 :]:
            assert made[name] != made[other], (name, other)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("full", "freeze.name", "none"),
        ("probe", "freeze.name", "all"),
        ("discriminative", "optimizer.backbone_lr_mult", 0.1),
        ("llrd", "optimizer.decay", "weights"),
        ("l2_sp", "optimizer.weight_decay", 0.0),
        ("lora", "adapter.name", "lora"),
        ("mixup", "mix.cutmix", 1.0),
        ("wise_ft", "train.wise_ft.heads", False),
        ("swa", "train.swa.start", 0.75),
    ],
)
def test_what_it_sets(plan, name, path, value):
    data = plan(f"strategy={name}").resolved()
    for key in path.split("."):
        data = data[key]
    assert data == value
