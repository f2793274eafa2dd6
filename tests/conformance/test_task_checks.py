"""Tasks that are wrong in one way, and what the kit says of each."""

import pytest

SMALL = {"backbone": {"name": "acme/tiny", "weights": "none"}, "image": {"size": 16}, "data": {"limit": 24}}
SPEC = 'targets={"label": Defaults(head="flat", loss="distance", metrics=("hits",))}, soft=("label",)'
PARTS = """
@hookimpl
def register_heads():
    yield HeadSpec(name="flat", task="thing", factory="wrong_models:flat", summary="A head.")

@hookimpl
def register_losses():
    yield LossSpec(
        name="distance", task="thing", factory="wrong_models:distance", summary="A loss.", {loss}
    )

@hookimpl
def register_metrics():
    yield MetricSpec(
        name="hits", task="thing", factory="wrong_models:hits", summary="A metric.", primary="hits", {metric}
    )
"""
RIGHT = """
import copy
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from ftengine.errors import DataError
from ftengine.protocols import Companions, Head, Loss, Metric, Task

class Encoder:
    def __init__(self, index):
        self.index = index
    def __call__(self, target):
        return {"label": np.asarray(self.index[target["label"]], np.int64)}

class Right(Task):
    def fit(self, data):
        self.names = tuple(data.names["label"])
    def state(self):
        return {"names": list(self.names)}
    def load_state(self, state):
        self.names = tuple(state["names"])
    def encoder(self, data, place):
        return Encoder([self.names.index(name) for name in data.names["label"]])
    def soften(self, targets):
        return {"label": F.one_hot(targets["label"], len(self.names)).float()}
    def describe(self, prediction):
        return {"label": self.names[int(prediction["scores"].argmax())], "score": float(prediction["scores"].max())}
    def records(self, prediction, image_id):
        return [{"image_id": image_id, "scores": prediction["scores"].tolist()}]
    def index_map(self, prediction):
        return np.full((8, 8), int(prediction["scores"].argmax()), np.uint8)
    def draw(self, image, prediction):
        return 255 - image
    def perfect(self, encoded):
        return {"scores": F.one_hot(torch.from_numpy(encoded["label"]), len(self.names)).float()}

class flat(Head):
    def __init__(self, options, context):
        super().__init__()
        self.fc = nn.Linear(list(context.channels.values())[-1], len(context.task.names))
    def forward(self, features, batch):
        return {"logits": self.fc(list(features.values())[-1].mean((2, 3)))}
    def predict(self, output, batch):
        return [{"scores": row} for row in output["logits"].softmax(-1).float().cpu()]

class distance(Loss):
    def __init__(self, options, context):
        super().__init__()
    def forward(self, output, batch):
        return {"distance": F.cross_entropy(output["logits"], batch.targets["label"])}

class hits(Metric):
    def __init__(self, options, context): self.reset()
    def reset(self): self.hits = 0
    def update(self, predictions, targets):
        self.hits += sum(int(p["scores"].argmax() == l) for p, l in zip(predictions, targets["label"]))
    def compute(self): return {"hits": float(self.hits)}
    def merge(self, other): self.hits += other.hits

class Thing(Right):
"""
END = """

def thing(options, context):
    return Thing()
"""

pytestmark = pytest.mark.usefixtures("third_party")


@pytest.fixture
def thing(component):
    """The subject of a task that is right but for `wrong`, the body of a subclass, and for its spec."""

    def make(wrong, spec=SPEC, loss="", metric=""):
        body = "\n".join(f"    {line}" for line in wrong.splitlines())
        return component("task", RIGHT + body + END, spec, PARTS.format(loss=loss, metric=metric), SMALL)

    return make


@pytest.fixture
def found(thing):
    from ftengine.testing.kit import find_check, run_check

    def run(check, wrong="pass", **more):
        return run_check(find_check(check), thing(wrong, **more))

    return run


def test_a_right_task_passes_every_check(thing):
    from ftengine.testing.kit import checks_for, run_check

    subject = thing("pass")
    results = [run_check(one, subject) for one in checks_for("task") if one.name.startswith("task_")]
    assert len(results) == 12
    assert "\n".join(one.text for one in results if one.status != "ok") == ""


DEFAULTS = {
    "a loss that is not there": (
        {"spec": SPEC.replace("distance", "distanse")},
        "a default loss of `label` that exists",
        "unknown loss 'distanse'; did you mean 'wrong/distance'?",
    ),
    "a metric of another field": (
        {"metric": 'fields=("values",)'},
        "a default metric that takes `label`",
        "wrong/hits, which takes values",
    ),
    "a loss for another head": (
        {"loss": 'heads=("other",)'},
        "a default loss for the default head of `label`",
        "wrong/distance, which is for other, not wrong/flat",
    ),
    "no metric": (
        {"spec": SPEC.replace('"hits",', "")},
        "a default metric of `label`, by which the best checkpoint is chosen",
        "none",
    ),
}


@pytest.mark.parametrize(("spec", "expected", "text"), DEFAULTS.values(), ids=DEFAULTS)
def test_wrong_defaults_are_found_out(found, spec, expected, text):
    result = found("task_defaults", **spec)
    assert (result.expected, result.found) == (expected, text)


WRONG = {
    "a fit that draws": (
        "task_fit",
        """\
def fit(self, data):
    super().fit(data)
    self.offset = float(np.random.rand())
def state(self): return {**super().state(), "offset": self.offset}""",
        "the same state() of two tasks that are fitted on the same data",
        "['offset'] ",
    ),
    "a fit that refuses": (
        "task_fit",
        "def fit(self, data): raise DataError('train: too few samples')",
        "no error",
        "train: too few samples",
    ),
    "an array in the state": (
        "task_state",
        "def state(self): return {'names': np.array(self.names)}",
        "a state() that can be written as JSON",
        "Object of type ndarray is not JSON serializable",
    ),
    "a tuple in the state": (
        "task_state",
        """\
def state(self): return {"names": list(self.names), "sizes": {8: 24}}""",
        "a state() that is the same when it is read from JSON",
        "['sizes'] the names '8', not 8",
    ),
    "a state that is not taken back": (
        "task_state",
        "def load_state(self, state): self.names = tuple(sorted(state['names'], reverse=True))",
        "after load_state() the same state()",
        "['names'][0] '9', not '0'",
    ),
    "an encoder that needs more than the state": (
        "task_state",
        """\
def fit(self, data):
    super().fit(data)
    self.first = 1
def encoder(self, data, place):
    first = getattr(self, "first", 0)
    return Encoder([(i + first) % 10 for i in range(10)])""",
        "after load_state() an encoder that gives the same",
        "item [0]['label'] ",
    ),
    "a description that needs more than the state": (
        "task_rows",
        """\
def fit(self, data):
    super().fit(data)
    self.digits = 2
def describe(self, prediction): return {"score": round(float(prediction["scores"].max()), getattr(self, "digits", 1))}
""",
        "the same rows from a task that has its state from load_state()",
        "item [0]['score'] ",
    ),
    "an encoder that does not pickle": (
        "task_encoder",
        "def encoder(self, data, place): return lambda target: {'label': np.asarray(target['label'])}",
        "an encoder that can be pickled, as it is called in worker processes",
        "pickle",
    ),
    "an encoder that takes the target apart": (
        "task_encoder",
        """\
def encoder(self, data, place): return self.encode
def encode(self, target): return {"label": np.asarray(target.pop("label"))}""",
        "that the encoder leaves a target as it is",
        "the names 'values', not 'label', 'values'",
    ),
    "an encoder of plain numbers": (
        "task_encoder",
        """\
def encoder(self, data, place): return self.encode
def encode(self, target): return {"label": target["label"]}""",
        "arrays by name from the encoder",
        "int for 'label'",
    ),
    "an encoder that draws": (
        "task_encoder",
        """\
def encoder(self, data, place): return self.encode
def encode(self, target): return {"label": np.asarray(target["label"], np.int64), "noise": np.random.rand(2)}""",
        "the same a second time",
        "['noise'][0] ",
    ),
    "the split's own indices": (
        "task_class_order",
        "def encoder(self, data, place): return Encoder(range(10))",
        "the same of a split whose names of `label` are in the reverse order",
        "['label'] ",
    ),
    "a batch without its dimension": (
        "task_collate",
        "def collate(self, encoded): return {'label': torch.tensor(3)}",
        "1 of 'label' for a batch of 1",
        "tensor int64 []",
    ),
    "a list of arrays": (
        "task_collate",
        "def collate(self, encoded): return {'label': [one['label'] for one in encoded]}",
        "a tensor or a list of tensors as 'label'",
        "array int64 []",
    ),
    "a batch as it comes": (
        "task_collate",
        "def collate(self, encoded): return list(encoded)",
        "a dict from collate()",
        "list",
    ),
    "a list of another length": (
        "task_collate",
        "def collate(self, encoded): return {'label': [torch.zeros(2)] * 2}",
        "1 of 'label' for a batch of 1",
        "a list of 2",
    ),
    "soft targets that are ids": (
        "task_soften",
        "def soften(self, targets): return {'label': targets['label']}",
        "probabilities of 'label', float [16, classes]",
        "tensor int64 [16]",
    ),
    "soft targets of another name": (
        "task_soften",
        "def soften(self, targets): return {'soft': F.one_hot(targets['label'], 10).float()}",
        "some of the targets from soften(): label",
        "soft",
    ),
    "soft targets above 1": (
        "task_soften",
        "def soften(self, targets): return {'label': 2 * F.one_hot(targets['label'], 10).float()}",
        "probabilities of 'label' in 0..1",
        "values from 0 to 2",
    ),
    "one that cannot mix what its spec says": (
        "task_soften",
        "soften = Task.soften",
        "no error",
        "NotImplementedError: Thing cannot mix its targets",
    ),
    "strata of another length": (
        "task_strata",
        "def strata(self, data): return np.zeros(3, np.int64)",
        "an array of ints, [24], or None from strata()",
        "array int64 [3]",
    ),
    "strata that are drawn": (
        "task_strata",
        "def strata(self, data): return np.random.randint(0, 1000, len(data))",
        "the same strata() a second time",
        "] ",
    ),
    "companions of none": (
        "task_strata",
        "def companions(self, data): return Companions(np.zeros(len(data), np.int64), 1)",
        "a count of 2 or more from companions()",
        "1",
    ),
    "companions by their names": (
        "task_strata",
        "def companions(self, data): return Companions(np.array(['a'] * len(data)), 2)",
        "an array of ints, [24], or None from companions()",
        "array <U1 [24]",
    ),
    "a row with a tensor": (
        "task_rows",
        "def describe(self, prediction): return {'score': prediction['scores'].max()}",
        "text or Python's own numbers by name from describe()",
        "tensor float32 [] for 'score'",
    ),
    "records with an array": (
        "task_rows",
        "def records(self, prediction, image_id): return [{'scores': prediction['scores'].numpy()}]",
        "records() that can be written as JSON",
        "Object of type ndarray is not JSON serializable",
    ),
    "a description that sorts the scores": (
        "task_rows",
        "def describe(self, prediction): return {'best': float(prediction['scores'].mul_(-1).max())}",
        "that describe() and records() leave a prediction as it is",
        "['scores'][0] ",
    ),
    "an index map of another size": (
        "task_index_map",
        "def index_map(self, prediction): return np.zeros((16, 16), np.uint8)",
        "array uint8 [8, 8] or None from index_map()",
        "array uint8 [16, 16]",
    ),
    "a picture on the image itself": (
        "task_pictures",
        """\
def draw(self, image, prediction):
    image[:2] = 255
    return image""",
        "that draw() leaves the image and the prediction as they are",
        "item [0][0, 0, 0] 255, not ",
    ),
    "the image as a picture": (
        "task_pictures",
        "def draw(self, image, prediction): return image[2:]",
        "a new picture from draw()",
        "the image's own memory",
    ),
    "a picture of floats": (
        "task_pictures",
        "def draw(self, image, prediction): return image / 255",
        "array uint8 [height, width, 3] or None from draw()",
        "array float64 [8, 8, 3]",
    ),
    "pictures without a truth": (
        "task_pictures",
        "perfect = Task.perfect",
        "a method `perfect`, whose predictions are drawn beside the model's",
        "`draw` alone",
    ),
    "a perfect prediction of another kind": (
        "task_perfect",
        "def perfect(self, encoded): return {'scores': torch.from_numpy(encoded['label'].copy())}",
        "as 'scores' of a perfect prediction a tensor like the model's, tensor float32 [10]",
        "tensor int64 []",
    ),
    "a perfect prediction of another name": (
        "task_perfect",
        "def perfect(self, encoded): return {'label': torch.from_numpy(encoded['label'].copy())}",
        "from perfect() some of what the model predicts: scores",
        "label",
    ),
}


@pytest.mark.parametrize(("check", "wrong", "expected", "text"), WRONG.values(), ids=WRONG)
def test_a_wrong_task_is_found_out(found, check, wrong, expected, text):
    result = found(check, wrong)
    assert (result.status, result.check.name) == ("failed", check)
    assert result.expected == expected
    assert text in result.found


def test_soft_fields_must_be_the_tasks(found):
    result = found("task_soften", spec=SPEC.replace('soft=("label",)', 'soft=("tags",)'))
    assert (result.expected, result.found) == ("target fields of the task as `soft`: label", "tags")


LEFT_OUT = {
    "task_soften": "`label` is not among the spec's `soft` fields",
    "task_index_map": "its predictions are no pictures of class ids",
    "task_pictures": "it draws nothing",
    "task_perfect": "it has no method `perfect`",
}


@pytest.mark.parametrize(("check", "reason"), LEFT_OUT.items(), ids=LEFT_OUT)
def test_what_a_task_does_not_do_is_left_out(found, check, reason):
    silent = "index_map = Task.index_map\ndraw = Task.draw\nperfect = Task.perfect"
    result = found(check, silent, spec=SPEC.replace('soft=("label",)', ""))
    assert (result.status, result.reason) == ("left out", reason)


def test_the_names_of_an_unknown_field_are_not_turned_round(found, monkeypatch):
    monkeypatch.setattr("ftengine.testing.tasks.TARGET_FIELDS", {})
    result = found("task_class_order")
    assert (result.status, result.reason) == (
        "left out",
        "`label` is no field of the vocabulary: how it refers to its names is not known",
    )
