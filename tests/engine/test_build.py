"""A plan made into parts, with components whose factories stand in this file."""

import textwrap

import numpy as np
import pytest
import torch
import yaml
from tiny import Policy, TinyBackbone, TinyData, TinyHead, TinyLoss

from ftengine.build import make_backbone, make_dataset, make_metrics, make_model, make_streams, make_tasks
from ftengine.errors import ConfigError, DataError, FtengineError
from ftengine.protocols import Companions, Metric, Task
from ftengine.resolve import load

PLUGIN = """
from typing import Any

class DataOptions(DatasetOptions):
    length: int = 20

class NetOptions(Options):
    result: str = "right"

@hookimpl
def register_tasks():
    defaults = Defaults(head="head", loss="loss", metrics=("metric",))
    yield TaskSpec(name="parity", factory="test_build:make_task", summary="T.", targets={"label": defaults})

@hookimpl
def register_backbones():
    yield BackboneSpec(name="net", factory="test_build:make_net", summary="B.", levels=("c1", "c2"), options=NetOptions)

@hookimpl
def register_heads():
    yield HeadSpec(name="head", task="parity", factory="test_build:make_head", summary="H.")
    yield HeadSpec(name="low", task="parity", factory="test_build:make_head", summary="H.", levels=("c1",))

@hookimpl
def register_losses():
    yield LossSpec(name="loss", task="parity", factory="test_build:make_loss", summary="L.")

@hookimpl
def register_metrics():
    yield MetricSpec(name="metric", task="parity", primary="seen", factory="test_build:make_metric", summary="M.")

@hookimpl
def register_freeze_policies():
    yield FreezeSpec(name="none", factory="test_build:make_freeze", summary="F.")

@hookimpl
def register_datasets():
    yield DatasetSpec(name="tiny", fields=("label",), factory="test_build:make_data", summary="D.", options=DataOptions)
"""

CONTEXTS = {}


class Parity(Task):
    def fit(self, data):
        self.fitted = len(data)

    def state(self):
        return {"fitted": self.fitted}

    def load_state(self, state):
        self.fitted = state["fitted"]

    def encoder(self, data, place):
        def encode(target):
            if target["label"] not in (0, 1):
                raise DataError(f"{place}: a label of {target['label']}")
            return {"label": np.int64(target["label"])}

        return encode

    def describe(self, prediction):
        return {}

    def strata(self, data):
        return np.array([data.target(index)["label"] for index in range(len(data))])


class Seen(Metric):
    def update(self, predictions, targets):
        pass

    def compute(self):
        return {"seen": 0.0}

    def reset(self):
        pass

    def merge(self, other):
        pass


def make_task(options, context):
    CONTEXTS["task"] = context
    return Parity()


def make_net(options, context):
    CONTEXTS["backbone"] = context
    if options.result == "raises":
        raise KeyError("width")
    if options.result == "refuses":
        raise DataError("not with these data")
    if options.result == "partial":
        net = TinyBackbone()
        net.channels.pop("c1")
        return net
    if options.result == "outside":
        net = TinyBackbone()
        net.position = torch.nn.Parameter(torch.zeros(1))
        net.alias = net.stages["c1"][0].weight
        return net
    if options.result == "wrong":
        return torch.nn.Linear(1, 1)
    return TinyBackbone(min_size=8, mean=(0.1, 0.2, 0.3), std=(1, 2, 3))


def make_head(options, context):
    CONTEXTS["head"] = context
    return TinyHead()


def make_loss(options, context):
    CONTEXTS["loss"] = context
    return TinyLoss()


def make_metric(options, context):
    return Seen()


def make_freeze(options, context):
    CONTEXTS["freeze"] = context
    return Policy(set())


class Bad(TinyData):
    def target(self, index):
        return {"label": 7 if index == 13 else index % 2}


class Nameless(TinyData):
    names = {}  # noqa: RUF012


def make_data(options, context):
    source = getattr(options, context.split)
    if source == "bad":
        return Bad(options.length)
    if source == "nameless":
        return Nameless(options.length)
    return TinyData(int(source) if source is not None else options.length)


@pytest.fixture
def plan(tmp_path, distributions):
    distributions.engine(base=textwrap.dedent(PLUGIN))

    def make(**changes):
        config = {
            "task": "parity",
            "data": {"format": "tiny"},
            "backbone": {"name": "net", "weights": "none"},
            "image": {"size": 8},
            "train": {"batch_size": 4, "seed": 5},
            **changes,
        }
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump(config))
        return load(file)

    return make


def streams(plan):
    tasks = make_tasks(plan)
    return make_streams(plan, tasks)["data"], tasks["parity"]


# --- data --------------------------------------------------------------------------------------------------------


def test_a_split_that_is_not_given_is_held_out_and_the_task_is_fitted_on_the_rest(plan):
    stream, task = streams(plan(data={"format": "tiny", "length": 40, "val_fraction": 0.25, "test_fraction": 0.1}))
    assert (len(stream.train), len(stream.val), len(stream.test)) == (26, 10, 4)
    assert task.fitted == 26
    ids = [split.data.sample_id(i) for split in (stream.train, stream.val, stream.test) for i in range(len(split))]
    assert sorted(ids) == sorted(f"tiny-{i}" for i in range(40))
    assert CONTEXTS["task"].field == "label"


def test_given_splits_are_taken_as_they_are(plan):
    stream, task = streams(plan(data={"format": "tiny", "train": "12", "val": "5", "test": "3"}))
    assert (len(stream.train), len(stream.val), len(stream.test), task.fitted) == (12, 5, 3, 12)


def test_without_a_test_split_there_is_none(plan):
    assert streams(plan())[0].test is None


def test_only_the_training_split_is_augmented(plan):
    stream, _ = streams(plan(augment=["HorizontalFlip"], data={"format": "tiny", "test_fraction": 0.2}))
    assert stream.train.augmentation is not None
    assert stream.val.augmentation is stream.test.augmentation is None
    assert stream.train.seed == 5


def test_the_training_split_alone_is_dealt_with_companions(plan, monkeypatch):
    monkeypatch.setattr(Parity, "companions", lambda self, data: Companions(self.strata(data), 2), raising=False)
    stream, _ = streams(plan(data={"format": "tiny", "val": "5"}))
    assert stream.train.groups.count == 2
    assert stream.val.groups is None


def test_a_bad_target_shows_before_training(plan):
    with pytest.raises(DataError, match="the val split: a label of 7"):
        streams(plan(data={"format": "tiny", "train": "12", "val": "bad"}))


def test_fewer_samples_than_a_batch(plan):
    with pytest.raises(DataError, match=r"data: the training split has 3 samples, fewer than train\.batch_size 4"):
        streams(plan(data={"format": "tiny", "train": "3", "val": "3"}))


def test_an_empty_split(plan):
    with pytest.raises(DataError, match=r"data\.val of tiny holds no samples"):
        streams(plan(data={"format": "tiny", "train": "9", "val": "0"}))
    with pytest.raises(DataError, match=r"data\.train of tiny holds no samples"):
        make_dataset(plan(data={"format": "tiny", "train": "0"}), "data", "train")


def test_data_without_the_field_that_their_format_promises(plan):
    with pytest.raises(
        DataError, match=r"the data of task 'parity' give no `label`, though its format \(tiny\) says so"
    ):
        streams(plan(data={"format": "tiny", "train": "nameless"}))


# --- model -------------------------------------------------------------------------------------------------------


def model(plan):
    return make_model(plan, make_tasks(plan))


def test_factories_get_what_the_contexts_promise(plan):
    built = model(plan())
    assert (CONTEXTS["backbone"].weights, CONTEXTS["backbone"].levels) == (None, None)
    assert (CONTEXTS["head"].channels, CONTEXTS["head"].strides) == ({"c1": 4, "c2": 6}, {"c1": 2, "c2": 4})
    assert CONTEXTS["head"].task is CONTEXTS["loss"].task
    assert CONTEXTS["loss"].head is built.model.heads["parity"]
    assert CONTEXTS["freeze"].stages["c1"] == ("c1.0.weight", "c1.1.weight", "c1.1.bias")
    assert built.coverage is None
    assert [type(metric) for metric in built.metrics["parity"]] == [Seen]


def test_the_backbone_is_asked_for_the_levels_that_the_heads_need(plan):
    make_backbone(plan(head="low"))
    assert CONTEXTS["backbone"].levels == ("c1",)


def test_images_are_normalised_as_the_weights_want_unless_the_config_says_otherwise(plan):
    assert model(plan()).model.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    own = model(plan(image={"size": 8, "mean": [0, 0, 0]})).model
    assert own.mean.flatten().tolist() == [0, 0, 0]
    assert own.std.flatten().tolist() == [1, 2, 3]


def test_new_layers_follow_from_the_seed(plan):
    made = plan()
    first, again = model(made).model.state_dict(), model(made).model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = model(plan(train={"batch_size": 4, "seed": 6})).model.state_dict()
    assert not torch.equal(first["heads.parity.fc.weight"], other["heads.parity.fc.weight"])


def test_images_that_are_too_small(plan):
    with pytest.raises(
        ConfigError, match=r"image\.size: net takes images of at least 8 pixels a side, found \[4, 16\]"
    ):
        model(plan(image={"size": [4, 16]}))


def test_a_level_that_the_backbone_turns_out_not_to_have(plan):
    with pytest.raises(ConfigError, match="head 'low' needs c1; this backbone has c2"):
        model(plan(head="low", backbone={"name": "net", "weights": "none", "result": "partial"}))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("raises", r"^backbone 'net' \(plugin base\) could not be built: KeyError: 'width'$"),
        ("refuses", "^not with these data$"),
        ("wrong", r"^backbone 'net' \(plugin base\): test_build:make_net returned a Linear, expected a Backbone$"),
        ("outside", "^backbone 'net': all of its parameters must be in its stages, .*; outside are position$"),
    ],
)
def test_a_factory_that_fails_is_told_in_the_component_s_name(plan, result, message):
    with pytest.raises(FtengineError, match=message):
        make_backbone(plan(backbone={"name": "net", "weights": "none", "result": result}))


def test_metrics_are_made_anew_each_time(plan):
    made = plan()
    (task,) = make_tasks(made).values()
    (first,), (second,) = make_metrics(made, "parity", task), make_metrics(made, "parity", task)
    assert first is not second
