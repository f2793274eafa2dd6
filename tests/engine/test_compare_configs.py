"""What of a config the compared strategies decide, and what stays."""

import pytest
import yaml
from config_files import DIGITS

from ftengine.compare import configs
from ftengine.document import read
from ftengine.errors import ConfigError, FtengineError
from ftengine.host import Host
from ftengine.resolve import load

STRATEGIES = """
from ftengine.plugin import StrategySpec, hookimpl

FTENGINE_API = (1, 0)

SETTINGS = {
    "places": {"freeze": "none", "optimizer": {"layer_decay": 0.7}},
    "averaged": {"train": {"swa": {"start": 0.5}}},
    "mixed": {"mix": {"mixup": 0.2}},
    "faster": {"optimizer": {"lr": 0.5}, "train": {"epochs": 3}},
    "other": {"optimizer": {"name": "sgd", "momentum": 0.5}, "schedule": "constant"},
    "same": {"optimizer": "adamw", "schedule": {"name": "cosine", "final": 0.5}},
    "wrong": {"freeze": {"name": "stages", "through": "c2", "only": ["c1"]}},
}

@hookimpl
def register_strategies():
    for name, settings in SETTINGS.items():
        yield StrategySpec(name=name, summary=name, settings=settings)
"""
BASE = """
task: classification
data: digits
backbone: {name: resnet18, weights: none}
strategy: full
freeze: {name: stages, through: c2}
regularizers: l1
mix: {cutmix: 1.0}
optimizer: {lr: 0.003, betas: [0.8, 0.9], layer_decay: 0.9, backbone_lr_mult: 0.5}
schedule: {final: 0.1}
train: {epochs: 4, ema: true, clip_norm: 1}
"""


@pytest.fixture
def made(tmp_path, install_plugin):
    """The documents and notes of strategies of the plugin ``lab``, or built-in ones."""
    install_plugin("lab", STRATEGIES)

    def make(*names, text=BASE):
        file = tmp_path / "base.yaml"
        file.write_text(text)
        host = Host.discover()
        known = host.names("strategy")
        chosen = [host.find("strategy", f"lab/{name}" if f"lab/{name}" in known else name) for name in names]
        documents, notes = configs.documents(read(file), chosen)
        return {name.removeprefix("lab/"): document for name, document in documents.items()}, notes

    return make


def test_what_a_strategy_consists_of_is_taken_out_and_nothing_else(made):
    documents, notes = made("probe", "full")
    expected = yaml.safe_load(BASE)
    for section in ("freeze", "regularizers"):
        del expected[section]
    expected["train"]["pictures"] = 0
    assert documents["probe"].data == expected | {"strategy": "probe"}
    assert documents["full"].data == expected | {"strategy": "full"}
    text = "the strategies decide these, and the config's are not used: strategy, freeze, regularizers"
    assert notes == [text]


def test_what_one_of_them_sets_is_taken_out_for_all(made):
    documents, notes = made("full", "places", "averaged", "mixed")
    for document in documents.values():
        assert "mix" not in document.data
        assert document.data["optimizer"] == {"lr": 0.003, "betas": [0.8, 0.9], "backbone_lr_mult": 0.5}
        assert document.data["train"] == {"epochs": 4, "clip_norm": 1, "pictures": 0}
    assert len(notes) == 1
    assert notes[0].endswith("strategy, freeze, regularizers, optimizer.layer_decay, train.ema, mix")


def test_what_every_run_needs_is_taken_out_only_for_the_strategy_that_sets_it(made):
    documents, notes = made("full", "faster", "other", "same")
    assert documents["full"].data["optimizer"]["lr"] == 0.003
    assert "lr" not in documents["faster"].data["optimizer"]
    assert documents["faster"].data["train"]["epochs"] == 4
    assert "optimizer" not in documents["other"].data
    assert "schedule" not in documents["other"].data
    assert documents["same"].data["optimizer"]["betas"] == [0.8, 0.9]
    assert documents["same"].data["schedule"] == {}
    assert notes[1:] == [
        "lab/faster sets its own optimizer.lr in place of the config's",
        "lab/other sets its own optimizer, schedule in place of the config's",
        "lab/same sets its own schedule.final in place of the config's",
    ]


def test_every_config_that_is_written_is_that_of_its_strategy(made, tmp_path):
    documents, _ = made("full", "places", "averaged", "other", "same")
    for name, document in documents.items():
        configs.write_config(tmp_path / f"{name}.yaml", document)
    plans = {name: load(tmp_path / f"{name}.yaml") for name in documents}
    assert plans["places"].config.optimizer.layer_decay == 0.7
    assert plans["full"].config.optimizer.layer_decay is None
    assert plans["averaged"].config.train.swa.start == 0.5
    assert plans["other"].optimizer.momentum == 0.5
    assert plans["same"].schedule.final == 0.5
    assert {plan.config.train.pictures for plan in plans.values()} == {0}
    assert all(plan.strategy.endswith(name) for name, plan in plans.items())


def test_the_base_config_stays_as_it_was(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    base = read(tmp_path / "base.yaml")
    documents, _ = configs.documents(base, Host.discover().select("strategy"))
    changed = configs.with_epochs(documents["probe"], 9)
    list(configs.plans(documents))
    assert base.data == yaml.safe_load(BASE)
    assert documents["probe"].data["train"]["epochs"] == 4
    assert "freeze" not in documents["probe"].data
    assert changed.data["train"]["epochs"] == 9


def problems(documents):
    return {name: plan for name, plan in configs.plans(documents) if isinstance(plan, FtengineError)}


def test_what_is_wrong_with_some_strategies_is_told_together(made):
    documents, _ = made("full", "wrong", "averaged", text=BASE.replace("ema: true", "ema: true, batch_size: 32"))
    found = problems(documents)
    assert list(found) == ["wrong"]
    with pytest.raises(configs.StrategiesError) as error:
        configs.refuse(found, len(documents))
    assert error.value.exit_code == 2
    assert str(error.value).startswith(
        "1 of 3 strategies cannot be run with this config; nothing was started\n  wrong: "
    )
    assert "takes exactly one of 'through' and 'only'" in str(error.value)


def test_what_is_wrong_with_the_config_itself_is_told_once(made):
    documents, _ = made("full", "probe", text=BASE.replace("resnet18", "resnet81"))
    with pytest.raises(ConfigError) as error:
        configs.refuse(problems(documents), len(documents))
    (problem,) = error.value.problems
    assert problem.line == 4
    assert "did you mean" in problem.message


def test_nothing_wrong_is_not_refused():
    configs.refuse({}, 3)


# --- the --retain task -------------------------------------------------------------------------------------------

RETAIN = """
task: regression
data: {format: digits, targets: [ink]}
freeze: {name: stages, through: c2}
adapter: lora
train: {epochs: 1, swa: true}
"""


@pytest.fixture
def retained(tmp_path):
    def make(text=RETAIN, base=BASE):
        for name, content in (("retain.yaml", text), ("base.yaml", base)):
            (tmp_path / name).write_text(content)
        return configs.retain_document(read(tmp_path / "retain.yaml"), read(tmp_path / "base.yaml"))

    return make


def test_the_retain_task_is_probed_on_the_compared_backbone(retained):
    assert retained().data == {
        "task": "regression",
        "data": {"format": "digits", "targets": ["ink"]},
        "backbone": {"name": "resnet18", "weights": "none"},
        "strategy": "probe",
        "train": {"epochs": 1, "pictures": 0},
    }


@pytest.fixture
def weights(tmp_path):
    """A file that is there; what is in it is not read before a run is built."""
    file = tmp_path / "weights.pth"
    file.touch()
    return file


@pytest.mark.parametrize(
    ("backbone", "path"),
    [
        ("{name: resnet34, weights: WEIGHTS}", "backbone"),
        ("{name: resnet18}", "backbone.weights"),
    ],
)
def test_a_retain_task_on_another_backbone_is_refused(retained, plan, weights, backbone, path):
    base = plan(DIGITS.replace("none", str(weights)))
    own = f"backbone: {backbone}\n".replace("WEIGHTS", str(weights))
    documents = {
        "other": retained(RETAIN + own),
        "same": retained(base=BASE.replace("weights: none", f"weights: {weights}")),
    }
    plans = dict(configs.plans(documents))
    with pytest.raises(ConfigError) as error:
        configs.check_backbone(plans["other"], base)
    assert [problem.path for problem in error.value.problems] == [path]
    configs.check_backbone(plans["same"], base)


def test_a_backbone_of_random_weights_has_nothing_to_lose(retained, plan):
    ((_, own),) = configs.plans({"retain": retained()})
    with pytest.raises(ConfigError, match="starts from random weights has nothing to lose"):
        configs.check_backbone(own, plan(DIGITS))
