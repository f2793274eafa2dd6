"""The typed config: what may be written in short, and what mistakes are called."""

import pytest

from ftengine.config import BackboneRef, Config, DataRef, ImageConfig, Ref, parse
from ftengine.config_train import EarlyStopping, EmaConfig, TrainConfig
from ftengine.document import Document, Origin, walk


def mistakes(**data):
    """The mistakes in a config that is otherwise right, as {path: message}."""
    data = {"task": "classification", "backbone": "resnet18", **data}
    document = Document(data, {path: Origin("run.yaml", 1) for path in walk(data, ())})
    config, problems = parse(document)
    assert (config is None) == bool(problems)
    assert all(problem.source == "run.yaml" for problem in problems)
    assert len({problem.path for problem in problems}) == len(problems)
    return {problem.path: problem.message for problem in problems}


# --- forms -------------------------------------------------------------------------------------------------------


def test_a_component_is_a_name_or_a_mapping():
    assert Ref.model_validate("linear") == Ref.model_validate({"name": "linear"})
    assert Ref.model_validate({"name": "mlp", "hidden": [3], "x": {"y": 1}}).options == {"hidden": [3], "x": {"y": 1}}
    assert Ref.model_validate("linear").options == {}
    assert DataRef.model_validate("digits") == DataRef.model_validate({"format": "digits"})
    assert DataRef.model_validate({"format": "csv", "train": "a.csv"}).options == {"train": "a.csv"}


def test_weights_are_a_source_or_a_mapping_and_no_option_of_the_backbone():
    plain = BackboneRef.model_validate({"name": "r", "weights": "none", "width": 2})
    assert (plain.weights.source, plain.weights.allow, plain.options) == ("none", (), {"width": 2})
    full = BackboneRef.model_validate({"name": "r", "weights": {"source": "a.pth", "allow": ["fc.*"]}})
    assert (full.weights.source, full.weights.allow) == ("a.pth", ("fc.*",))
    assert BackboneRef.model_validate("r").weights.source == "default"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, EmaConfig()),
        ({}, EmaConfig()),
        (0.99, EmaConfig(decay=0.99)),
        ({"warmup": False}, EmaConfig(warmup=False)),
        (None, None),
    ],
)
def test_forms_of_ema(value, expected):
    assert TrainConfig.model_validate({"ema": value}).ema == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, EarlyStopping(patience=3)),
        ({"patience": 2, "min_delta": 0.1}, EarlyStopping(patience=2, min_delta=0.1)),
        (None, None),
    ],
)
def test_forms_of_early_stopping(value, expected):
    assert TrainConfig.model_validate({"early_stopping": value}).early_stopping == expected


@pytest.mark.parametrize(("value", "expected"), [(32, (32, 32)), ([32, 64], (32, 64)), ((8, 9), (8, 9))])
def test_forms_of_the_image_size(value, expected):
    assert ImageConfig.model_validate({"size": value}).size == expected


def test_a_dumped_config_reads_back_as_the_same():
    config = Config.model_validate(
        {"task": "t", "backbone": "b", "image": {"size": 8}, "train": {"ema": 0.9, "early_stopping": 3}}
    )
    assert Config.model_validate(config.model_dump(mode="json")) == config


# --- mistakes ----------------------------------------------------------------------------------------------------

EMA = "expected true, a decay below 1, a mapping, or null; found "
STOPPING = "expected a patience in evaluations, a mapping with `patience`, or null; found "
COMPONENT = "expected a name, or a mapping with `name`; found "
SOURCE = "expected a source, or a mapping with `source`; found "
SIDES = "expected one number for both sides, or a list of height and width; found "


@pytest.mark.parametrize(
    ("train", "path", "message"),
    [
        ({"epochs": "ten"}, "epochs", "expected a whole number; found 'ten'"),
        ({"epochs": 2.5}, "epochs", "expected a whole number; found 2.5"),
        ({"epochs": None}, "epochs", "expected a whole number; found null"),
        ({"epochs": 0}, "epochs", "expected at least 1; found 0"),
        ({"epoch": 3}, "epoch", "unknown key 'epoch'; did you mean 'epochs'?"),
        ({"seed": 2**32}, "seed", "expected less than 4294967296; found 4294967296"),
        ({"clip_norm": 0}, "clip_norm", "expected more than 0; found 0"),
        ({"clip_norm": float("inf")}, "clip_norm", "expected a finite number; found Infinity"),
        ({"compile": "perhaps"}, "compile", "expected true or false; found 'perhaps'"),
        ({"workers": "many"}, "workers", "expected 'auto' or a whole number; found 'many'"),
        ({"workers": -1}, "workers", "expected 'auto' or at least 0; found -1"),
        ({"channels_last": [1]}, "channels_last", "expected 'auto' or true or false; found [1]"),
        ({"precision": "fp8"}, "precision", "expected 'auto', 'fp32', 'bf16' or 'fp16'; found 'fp8'"),
        ({"device": "gpu"}, "device", "expected auto | cpu | cuda | cuda:N | mps; found 'gpu'"),
        ({"ema": "yes please"}, "ema", EMA + "'yes please'"),
        ({"ema": 1}, "ema", EMA + "1"),
        ({"ema": {"decay": 2}}, "ema.decay", "expected less than 1; found 2"),
        ({"ema": {"decy": 0.9}}, "ema.decy", "unknown key 'decy'; did you mean 'decay'?"),
        ({"early_stopping": True}, "early_stopping", STOPPING + "true"),
        ({"early_stopping": {}}, "early_stopping.patience", "required, but not given"),
        ({"early_stopping": 0}, "early_stopping.patience", "expected at least 1; found 0"),
        ({"batch_size": 10, "accumulate": 3}, "", "accumulate 3 does not divide batch_size 10"),
    ],
)
def test_mistakes_in_train(train, path, message):
    assert mistakes(train=train) == {f"train.{path}".rstrip("."): message}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"train": 5}, {"train": "expected a mapping; found 5"}),
        ({"train": None}, {"train": "expected a mapping; found null"}),
        ({"image": {"size": "big"}}, {"image.size": SIDES + "'big'"}),
        ({"image": {"size": True}}, {"image.size": SIDES + "true"}),
        ({"image": {"size": [32]}}, {"image.size[1]": "required, but not given"}),
        ({"image": {"size": [1, 2, 3]}}, {"image.size": "expected a length of at most 2; found [1, 2, 3]"}),
        ({"image": {"size": 0}}, {"image.size": "expected at least 1; found 0"}),
        ({"image": {"size": [0, 8]}}, {"image.size[0]": "expected at least 1; found 0"}),
        ({"image": {"mean": [0.5, 0.5]}}, {"image.mean[2]": "required, but not given"}),
        ({"image": {"mean": 0.5}}, {"image.mean": "expected a list; found 0.5"}),
        (
            {"image": {"fit": "squash"}},
            {"image.fit": "expected 'crop', 'stretch', 'pad', 'shorter' or 'none'; found 'squash'"},
        ),
        ({"head": 3}, {"head": COMPONENT + "3"}),
        ({"head": ["linear"]}, {"head": COMPONENT + '["linear"]'}),
        ({"head": {"dropout": 0.1}}, {"head.name": "required, but not given"}),
        ({"head": {"name": 3}}, {"head.name": "expected a string; found 3"}),
        ({"data": 3}, {"data": "expected a format, or a mapping with `format`; found 3"}),
        ({"backbone": {"weights": "none"}}, {"backbone.name": "required, but not given"}),
        ({"backbone": {"name": "r", "weights": 3}}, {"backbone.weights": SOURCE + "3"}),
        (
            {"backbone": {"name": "r", "weights": {"file": "x"}}},
            {
                "backbone.weights.source": "required, but not given",
                "backbone.weights.file": "unknown key 'file'; known: allow, source",
            },
        ),
        ({"metrics": "accuracy"}, {"metrics": "expected a list; found 'accuracy'"}),
        ({"metrics": {"accuracy": 1}}, {"metrics": "expected a list; found a mapping"}),
        ({"metrics": ["accuracy", 3]}, {"metrics[1]": COMPONENT + "3"}),
        ({"augment": [3]}, {"augment[0]": "expected a string or a mapping; found 3"}),
        ({"plugins": {"require": "acme"}}, {"plugins.require": "expected a list; found 'acme'"}),
        ({"tasks": {"a": {"task": 3}}}, {"tasks.a.task": COMPONENT + "3"}),
        ({"tasks": {"a": {}}}, {"tasks.a.task": "required, but not given"}),
        (
            {"tasks": {"a": {"task": "t", "wieght": 1}}},
            {"tasks.a.wieght": "unknown key 'wieght'; did you mean 'weight'?"},
        ),
        ({"optimiser": "adam"}, {"optimiser": "unknown key 'optimiser'; did you mean 'optimizer'?"}),
        ({"loss": "x" * 90 + "y", "head": ["z" * 90]}, {"head": COMPONENT + '["' + "z" * 57 + "…"}),
    ],
)
def test_mistakes_elsewhere(data, expected):
    assert mistakes(**data) == expected


def test_all_mistakes_are_found_at_once():
    found = mistakes(train={"epochs": 0, "seed": -1, "monitr": "loss"}, image={"fit": 3}, hed="linear")
    assert set(found) == {"train.epochs", "train.seed", "train.monitr", "image.fit", "hed"}
