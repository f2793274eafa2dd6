"""The terms that regularizers add, what they are asked with, and what they are made from."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import Policy, make_batch, make_model

from ftengine.errors import CheckpointError, FtengineError
from ftengine.freeze import Freezer
from ftengine.host_specs import Component
from ftengine.plan import Part
from ftengine.plugin import Options, RegularizerSpec
from ftengine.protocols import Progress, Regularizer
from ftengine.regularize import Regularizers, make_regularizers
from ftengine.start import load_start, save_start


class Recorder(Regularizer):
    """Keeps what it was asked with."""

    def __init__(self, options=None, context=None):
        super().__init__()
        self.context = context
        self.weights, self.features, self.autocast = [], [], []
        self.register_buffer("ones", torch.ones(2), persistent=False)

    def of_weights(self, parameters):
        self.weights.append(dict(parameters))
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        return {"size": sum(p.sum() for p in parameters.values())}

    def of_features(self, images, features):
        self.features.append((images, features))
        return {"mean": features["c2"].mean()}


class Term(Regularizer):
    """Gives fixed terms."""

    def __init__(self, weights=None, features=None):
        super().__init__()
        self.given = weights or {}, features or {}

    def of_weights(self, parameters):
        return self.given[0]

    def of_features(self, images, features):
        return self.given[1]


def refuses(options, context):
    raise FtengineError("not with this backbone")


def plan(*factories):
    def part(name):
        spec = RegularizerSpec(name=name, factory=f"{__name__}:{name}", summary="R.")
        return Part(Component(f"acme/{name}", "regularizer", None, "acme", spec), Options(), ("regularizers",))

    return SimpleNamespace(regularizers=tuple(part(name) for name in factories))


def asked(model, *parts, weights=True, autocast=False):
    """The terms of a batch."""
    model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        passed = model(make_batch(), ["a"])
        regularizers = Regularizers([(type(part).__name__, part) for part in parts])
        return regularizers.terms(model, passed.images, passed.features, weights=weights), passed


def test_nothing_is_added_without_regularizers():
    model = make_model()
    made = make_regularizers(plan(), model, {}, False)
    assert made.parts == ()
    assert made.terms(model, torch.zeros(1, 3, 8, 8), {}, weights=True) == {}


def test_terms_of_features_come_with_every_batch_and_those_of_weights_when_asked():
    model, recorder = make_model(), Recorder()
    terms, passed = asked(model, recorder, weights=False)
    assert terms.keys() == {"mean"}
    assert recorder.weights == []
    assert recorder.features[0][0] is passed.images
    assert recorder.features[0][1].keys() == {"c1", "c2"}
    terms, _ = asked(model, recorder)
    assert terms.keys() == {"mean", "size"}
    assert list(recorder.weights[0]) == list(model.parameter_names())
    assert float(terms["size"].detach()) == pytest.approx(sum(float(p.detach().sum()) for p in model.parameters()))
    terms["size"].backward()
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())


def test_only_what_trains_is_asked_about_and_what_losses_learn_never_is():
    model, recorder = make_model(("a", "b"), learned=("b",)), Recorder()
    asked(model, recorder)
    names = {"c1.0.weight", "c1.1.weight", "c1.1.bias", "c2.0.weight", "c2.1.weight", "c2.1.bias"}
    heads = {f"head.{task}.fc.{name}" for task in ("a", "b") for name in ("weight", "bias")}
    assert set(recorder.weights[0]) == names | heads
    freezer = Freezer(model, Policy({"c1", "c2.1.bias"}, {"c1", "c2"}, set()))
    freezer.apply(Progress(0, 3))
    asked(model, recorder)
    assert set(recorder.weights[1]) == {"c2.0.weight", "c2.1.weight"} | heads
    freezer.apply(Progress(1, 3))
    asked(model, recorder)
    assert set(recorder.weights[2]) == heads
    freezer.apply(Progress(2, 3))
    asked(model, recorder)
    assert set(recorder.weights[3]) == names | heads


def test_nobody_is_asked_about_no_weights():
    model, recorder = make_model(), Recorder()
    model.requires_grad_(False)
    terms, _ = asked(model, recorder)
    assert terms.keys() == {"mean"}
    assert recorder.weights == []


def test_terms_of_weights_are_in_full_precision_within_autocast():
    class Product(Regularizer):
        def of_weights(self, parameters):
            weight = parameters["head.fc.weight"]
            return {"product": (weight @ weight.T).sum()}

        def of_features(self, images, features):
            return {"low": (features["c2"].flatten(1) @ features["c2"].flatten(1).T).sum()}

    model, recorder = make_model(), Recorder()
    terms, _ = asked(model, recorder, Product(), autocast=True)
    assert recorder.autocast == [False]
    weight = model.heads["a"].fc.weight
    assert terms["product"].dtype == torch.float32
    assert torch.equal(terms["product"], (weight @ weight.T).sum())
    assert terms["low"].dtype == torch.bfloat16, "those of features run as the backbone does"


def test_a_name_that_is_there_already_gets_a_mark():
    one, two, three = torch.ones(()), torch.full((), 2.0), torch.full((), 3.0)
    terms, _ = asked(make_model(), Term({"x": one}), Term({"x": two}), Term({"x": three}))
    assert terms == {"x": one, "x'": two, "x''": three}


@pytest.mark.parametrize("weights", [True, False])
def test_a_feature_terms_name_does_not_depend_on_the_weights_being_asked_for(weights):
    one, two = torch.ones(()), torch.full((), 2.0)
    terms, _ = asked(make_model(), Term({"x": one}), Term(features={"x": two}), weights=weights)
    assert terms["x"] is two
    assert terms.get("x'") is (one if weights else None)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"weights": {"x": torch.ones(2)}}, r"a tensor of shape \[2\]"),
        ({"features": {"x": torch.ones(1, 1)}}, r"a tensor of shape \[1, 1\]"),
        ({"weights": {"x": 1.5}}, "a float"),
    ],
)
def test_a_term_that_is_no_scalar_is_refused_with_the_regularizers_name(given, found):
    with pytest.raises(FtengineError, match=f"the regularizer 'Term' gave {found} as 'x'; expected a scalar tensor"):
        asked(make_model(), Term(**given))


# --- making them ---------------------------------------------------------------------------------------------------


def moved(directory: Path):
    """A model that has trained, and its start."""
    model = make_model(("a", "b"), learned=("a",))
    start = load_start(directory, save_start(directory, model))
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value.add_(1)
    return model, start


def made(model, start, adapted=False):
    regularizers = make_regularizers(plan("Recorder"), model, start, adapted)
    ((name, recorder),) = regularizers.parts
    assert name == "acme/Recorder"
    return recorder


@pytest.mark.parametrize("adapted", [False, True])
def test_the_context_tells_the_start_under_the_names_that_are_asked_with(tmp_path, adapted):
    model, start = moved(tmp_path)
    context = made(model, start, adapted).context
    recorder = Recorder()
    asked(model, recorder)
    assert list(context.start) == list(recorder.weights[0])
    for name, parameter in recorder.weights[0].items():
        torch.testing.assert_close(context.start[name], parameter.detach() - 1)
    assert context.levels == ("c1", "c2")
    assert context.adapted is adapted


def test_the_backbone_is_a_copy_of_what_it_was_with_its_buffers(tmp_path):
    model, start = moved(tmp_path)
    model.train()
    Freezer(model, Policy({"c1"})).apply(Progress(0, 1))
    make_copy = made(model, start).context.backbone
    copy = make_copy()
    assert copy is not make_copy()
    own = model.backbone.state_dict()
    for name, value in copy.state_dict().items():
        assert torch.equal(value, start[f"backbone.{name}"])
        assert not torch.equal(value, own[name]), "the model's own has moved"
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert not any(module.training for module in copy.modules())
    assert model.backbone.stages["c2"].training
    assert model.backbone.stages["c2"][0].weight.requires_grad


def test_a_start_that_is_the_model_itself_does_not_move_with_it():
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    context = made(model, model.state_dict()).context
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value.add_(1)
    for name, value in context.backbone().state_dict().items():
        assert torch.equal(value, before[f"backbone.{name}"])
    assert torch.equal(context.start["c1.0.weight"], before["backbone.stages.c1.0.weight"])
    assert torch.equal(context.start["head.fc.weight"], before["heads.a.fc.weight"])
    assert not any(value.requires_grad for value in context.start.values())


def test_the_copy_has_the_devices_memory_format(tmp_path):
    model, start = moved(tmp_path)
    model.backbone.to(memory_format=torch.channels_last)
    weight = made(model, start).context.backbone().stages["c2"][0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight, start["backbone.stages.c2.0.weight"])


def test_they_are_on_the_models_device_and_not_in_it(tmp_path):
    model, start = moved(tmp_path)
    keys = set(model.state_dict())
    recorder = made(model.to("meta"), start)
    assert recorder.ones.device.type == "meta"
    assert set(model.state_dict()) == keys


def test_each_of_the_plan_is_made_in_order(tmp_path):
    model, start = moved(tmp_path)
    assert [name for name, _ in make_regularizers(plan("Recorder", "Term"), model, start, False).parts] == [
        "acme/Recorder",
        "acme/Term",
    ]


def test_what_refuses_says_so_itself(tmp_path):
    model, start = moved(tmp_path)
    with pytest.raises(FtengineError, match=r"^not with this backbone$"):
        make_regularizers(plan("refuses"), model, start, False)


def test_a_start_of_another_model_is_refused(tmp_path):
    model, start = moved(tmp_path)
    del start["backbone.stages.c1.0.weight"]
    with pytest.raises(CheckpointError, match=r"missing: backbone\.stages\.c1\.0\.weight"):
        make_regularizers(plan("Recorder"), model, start, False)
