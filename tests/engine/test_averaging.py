"""The moving average against its closed formula, the stochastic one against the mean."""

import pytest
import torch
from tiny import Policy, make_batch, make_model

from ftengine.averaging import Ema, Swa, refresh_norms
from ftengine.config_train import EmaConfig, SwaConfig, TrainConfig
from ftengine.freeze import Freezer
from ftengine.precision import Precision
from ftengine.protocols import Progress
from ftengine.signals import Interrupted


def run(config, values):
    """The average of a model whose weights are all v, for v in `values`; the first is the start."""
    model = make_model()

    def fill(value):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)

    fill(values[0])
    ema = Ema(model, config)
    for value in values[1:]:
        fill(value)
        ema.after_step(model)
    return model, ema


VALUES = [1.0, 3.0, -2.0, 0.5, 4.0, 8.0]


def test_without_warm_up_it_is_the_closed_formula():
    decay = 0.8
    _, ema = run(EmaConfig(decay=decay, warmup=False), VALUES)
    n = len(VALUES) - 1
    expected = decay**n * VALUES[0] + sum((1 - decay) * decay ** (n - k) * VALUES[k] for k in range(1, n + 1))
    for parameter in ema.model.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, expected))


def test_with_warm_up_the_decay_of_the_nth_update_is_at_most_1_plus_n_by_10_plus_n():
    _, ema = run(EmaConfig(decay=0.3, warmup=True), VALUES)
    expected = VALUES[0]
    decays = [min(0.3, (1 + n) / (10 + n)) for n in range(1, len(VALUES))]
    assert decays[0] == 2 / 11
    assert decays[-1] == 0.3
    for decay, value in zip(decays, VALUES[1:], strict=True):
        expected = decay * expected + (1 - decay) * value
    for parameter in ema.model.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, expected))
    assert ema.updates == len(VALUES) - 1


def test_buffers_are_the_current_ones_of_every_type():
    model = make_model()
    model.register_buffer("flag", torch.tensor([True, False]))
    ema = Ema(model, EmaConfig())
    with torch.no_grad():
        model.flag[:] = torch.tensor([False, True])
        for name, buffer in model.named_buffers():
            if name != "flag":
                buffer.add_(3)
    ema.after_step(model)
    current = dict(model.named_buffers())
    for name, buffer in ema.model.named_buffers():
        assert buffer.dtype == current[name].dtype
        assert torch.equal(buffer, current[name]), name
    assert current["backbone.stages.c1.1.num_batches_tracked"] == 3


def test_the_average_is_a_separate_model_in_eval_mode_without_gradients():
    model = make_model()
    Freezer(model, Policy({"c1"})).apply(Progress(0, 1))
    model.train()
    ema = Ema(model, EmaConfig())
    assert ema.model.state_dict().keys() == model.state_dict().keys()
    assert not any(module.training for module in ema.model.modules())
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    assert model.training
    assert model.heads["a"].fc.weight.requires_grad
    before = ema.model.heads["a"].fc.weight.clone()
    with torch.no_grad():
        model.heads["a"].fc.weight.add_(1)
    assert torch.equal(ema.model.heads["a"].fc.weight, before)


def test_it_continues_from_its_weights_and_count():
    values = [*VALUES, 2.0, 5.0]
    config = EmaConfig(decay=0.9)
    _, whole = run(config, values)
    model, first = run(config, VALUES)
    resumed = Ema(model, config)
    resumed.model.load_state_dict(first.model.state_dict())
    resumed.updates = first.updates
    for value in values[len(VALUES) :]:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        resumed.after_step(model)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor)


@pytest.mark.parametrize("decay", [0, 1, -0.1, 1.5])
def test_a_decay_is_between_0_and_1(decay):
    with pytest.raises(ValueError, match="decay"):
        EmaConfig(decay=decay)


def averaged_epochs(start, values, restored_after=None):
    """The stochastic average over epochs whose ends have weights v, for v in `values`; stopped and restored once."""
    model = make_model()
    config = SwaConfig(start=start)
    swa = Swa(model, config, len(values))
    used = []
    for epoch, value in enumerate(values, 1):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        used.append(swa.after_epoch(model, epoch))
        if epoch == restored_after:
            again = Swa(model, config, len(values))
            again.model.load_state_dict(swa.model.state_dict())
            again.updates = swa.updates
            swa = again
    return swa, used


@pytest.mark.parametrize(
    ("start", "averaged"), [(0.0, 6), (0.5, 3), (0.75, 2), (0.99, 1)], ids=["all", "half", "default", "last"]
)
@pytest.mark.parametrize("restored_after", [None, 3, 5])
def test_the_stochastic_average_is_the_mean_of_the_last_epochs(start, averaged, restored_after):
    swa, used = averaged_epochs(start, VALUES, restored_after)
    assert used == [False] * (6 - averaged) + [True] * averaged
    assert swa.updates == averaged
    assert swa.ready
    expected = sum(VALUES[-averaged:]) / averaged
    for parameter in swa.model.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, expected))


def test_there_is_no_stochastic_average_before_its_start():
    _, used = averaged_epochs(0.75, VALUES[:2])
    assert used == [False, True]
    assert not Swa(make_model(), SwaConfig(), 4).ready


def test_statistics_are_taken_anew_but_for_what_is_frozen():
    model = make_model()
    Freezer(model, Policy({"c1"})).apply(Progress(0, 1))
    swa = Swa(model, SwaConfig(start=0), 1)
    swa.after_epoch(model, 1)
    norms = {name: swa.model.get_submodule(f"backbone.stages.{name}") for name in ("c1.1", "c2.1")}
    before = {name: norm.running_mean.clone() for name, norm in norms.items()}
    seen = []
    hook = norms["c2.1"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].transpose(0, 1).flatten(1)))
    batches = [(make_batch(seed=seed), ("a",)) for seed in range(3)]
    refresh_norms(swa.model, model, batches, Precision(TrainConfig(precision="fp32", device="cpu"), False))
    hook.remove()
    assert torch.equal(norms["c1.1"].running_mean, before["c1.1"])
    mean = torch.stack([values.mean(1) for values in seen]).mean(0)
    variance = torch.stack([values.var(1) for values in seen]).mean(0)
    torch.testing.assert_close(norms["c2.1"].running_mean, mean)
    torch.testing.assert_close(norms["c2.1"].running_var, variance)
    assert norms["c2.1"].momentum == 0.1
    assert not any(module.training for module in swa.model.modules())


def test_statistics_are_what_they_were_where_their_taking_is_cut_off():
    model = make_model()
    swa = Swa(model, SwaConfig(start=0), 1)
    swa.after_epoch(model, 1)
    before = {name: tensor.clone() for name, tensor in swa.model.state_dict().items()}
    precision = Precision(TrainConfig(precision="fp32", device="cpu"), False)

    def cut_off():
        yield make_batch(seed=0), ("a",)
        raise Interrupted("SIGTERM")

    with pytest.raises(Interrupted):
        refresh_norms(swa.model, model, cut_off(), precision)
    after = swa.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(module.training for module in swa.model.modules())
    assert swa.after_epoch(model, 1), "the same epoch is not averaged twice, and its statistics are still to be taken"
    assert swa.updates == 1
