"""What is frozen is compared bit by bit with what it was."""

import json

import pytest
import torch
from tiny import Policy, make_batch, make_model
from torch import nn

from ftengine.audit import Audit, digest
from ftengine.errors import TrainingError
from ftengine.freeze import Freezer
from ftengine.protocols import Progress

WEIGHT = "backbone.stages.c1.0.weight"
MEAN = "backbone.stages.c1.1.running_mean"


def start(*by_epoch):
    model = make_model()
    freezer, audit = Freezer(model, Policy(*by_epoch)), Audit()
    freezer.apply(Progress(0, len(by_epoch)))
    audit.update(model, freezer.held(), 0)
    return model, freezer, audit


def nudge(tensor):
    """Change one value by the smallest amount there is."""
    with torch.no_grad():
        flat = tensor.view(-1)
        flat[-1] = torch.nextafter(flat[-1], torch.tensor(torch.inf))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3),
        torch.arange(6.0, dtype=torch.float64),
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        torch.tensor([1.0, 2.0], dtype=torch.float16),
        torch.tensor(3),
        torch.tensor([True, False]),
        torch.empty(0, 3),
        torch.tensor([float("nan"), -0.0]),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tuple(tensor.shape)}",
)
def test_every_kind_of_tensor_has_a_digest_of_its_values(tensor):
    assert digest(tensor) == digest(tensor.clone())
    if tensor.numel():
        other = tensor.clone()
        other.view(-1)[-1] = 0 if tensor.view(-1)[-1] else 1
        assert digest(other) != digest(tensor)


def test_type_shape_and_sign_of_zero_are_part_of_a_digest_and_the_memory_format_is_not():
    zeros = torch.zeros(2, 6)
    others = [zeros.view(3, 4), torch.zeros(2, 6, dtype=torch.int32), torch.zeros(2, 6, dtype=torch.float64), -zeros]
    assert len({digest(tensor) for tensor in [zeros, *others]}) == 5
    images = torch.randn(2, 3, 4, 4)
    assert digest(images.to(memory_format=torch.channels_last)) == digest(images)


def test_nothing_has_changed():
    model, _, audit = start({"c1"})
    model.train()
    model(make_batch(), ["a"])
    nudge(model.heads["a"].fc.weight)
    audit.check(model)


def test_a_parameter_that_moved_is_named_with_since_when_and_likely_causes():
    model, _, audit = start({"c1"})
    nudge(model.get_parameter(WEIGHT))
    with pytest.raises(TrainingError) as error:
        audit.check(model)
    text = str(error.value)
    assert text.startswith("1 of 6 frozen tensors have changed while they were frozen:")
    assert f"{WEIGHT}, frozen since epoch 0" in text
    assert "writes weights in place" in text
    assert "train mode" not in text


def test_a_norm_that_someone_put_back_in_train_mode_is_found():
    model, _, audit = start({"c1"})
    model.train()
    model.backbone.stages["c1"][1].train()
    model(make_batch(), ["a"])
    with pytest.raises(TrainingError) as error:
        audit.check(model)
    text = str(error.value)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert f"backbone.stages.c1.1.{name}, frozen since epoch 0" in text
    assert "put back in train mode" in text
    assert "in place" not in text


def test_where_norms_stay_in_train_mode_their_statistics_may_move():
    model = make_model()
    freezer, audit = Freezer(model, Policy({"c1"}), "train"), Audit()
    freezer.apply(Progress(0, 1))
    audit.update(model, freezer.held(), 0)
    model.train()
    model(make_batch(), ["a"])
    audit.check(model)


def test_a_tensor_that_is_gone_has_changed():
    model, _, audit = start({"c1"})
    model.backbone.stages["c1"][1] = nn.Identity()
    with pytest.raises(TrainingError, match=r"5 of 6 frozen tensors") as error:
        audit.check(model)
    assert MEAN in str(error.value)


def test_a_long_list_is_shortened():
    model, _, audit = start({"c1", "c2"})
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    with pytest.raises(TrainingError, match=r"12 of 12 frozen tensors") as error:
        audit.check(model)
    assert str(error.value).count("frozen since") == 5
    assert "… (+7)" in str(error.value)


def test_the_end_of_a_period_is_checked_before_the_next_begins():
    model, freezer, audit = start({"c1", "c2"}, {"c1"})
    nudge(model.get_buffer("backbone.stages.c2.1.running_var"))
    freezer.apply(Progress(1, 2))
    with pytest.raises(TrainingError, match=r"c2\.1\.running_var, frozen since epoch 0"):
        audit.update(model, freezer.held(), 1)


def test_what_unfreezes_may_move_and_what_stays_frozen_keeps_its_first_digest_and_epoch():
    model, freezer, audit = start({"c1", "c2"}, {"c1"}, {"c1", "c2"})
    for epoch in (1, 2):
        freezer.apply(Progress(epoch, 3))
        audit.update(model, freezer.held(), epoch)
        if epoch == 1:
            nudge(model.get_parameter("backbone.stages.c2.0.weight"))
    audit.check(model)
    nudge(model.get_parameter(WEIGHT))
    nudge(model.get_parameter("backbone.stages.c2.0.weight"))
    with pytest.raises(TrainingError) as error:
        audit.check(model)
    assert f"{WEIGHT}, frozen since epoch 0" in str(error.value)
    assert "backbone.stages.c2.0.weight, frozen since epoch 2" in str(error.value)


def test_a_resumed_run_compares_with_what_was_there_before_the_interruption():
    model, _, audit = start({"c1"})
    state = json.loads(json.dumps(audit.state()))
    assert state.keys() == {name for name in model.state_dict() if name.startswith("backbone.stages.c1.")}
    other, freezer, resumed = start({"c1"})
    other.load_state_dict(model.state_dict())
    resumed.load_state(state)
    resumed.update(other, freezer.held(), 3)
    assert resumed.state() == state
    nudge(other.get_buffer(MEAN))
    again = Audit()
    again.load_state(state)
    with pytest.raises(TrainingError, match=f"{MEAN}, frozen since epoch 0"):
        again.update(other, freezer.held(), 3)
