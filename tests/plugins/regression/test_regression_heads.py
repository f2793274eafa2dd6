from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ftengine.protocols import Batch, Frame, HeadContext
from ftengine_regression.heads import Standardizer, linear, mlp
from ftengine_regression.options import LinearOptions, MlpOptions


def task(mean=(3.0, 7.0, 1.0), std=(2.0, 0.5, 0.25), transforms=("none", "log", "log1p")):
    names = ("a", "b", "c")[: len(mean)]
    return SimpleNamespace(names=names, transforms=transforms, mean=np.array(mean), std=np.array(std))


def context(**given):
    return HeadContext(channels={"c1": 5, "c2": 6}, strides={"c1": 2, "c2": 4}, task=task(**given))


def features():
    generator = torch.Generator().manual_seed(0)
    return {"c1": torch.randn(2, 5, 4, 4, generator=generator), "c2": torch.randn(2, 6, 2, 3, generator=generator)}


def batch(**targets):
    return Batch(images=torch.zeros(2, 3, 8, 8), targets=targets, ids=["a", "b"], frames=[Frame.whole(8, 8)] * 2)


VALUES = torch.tensor([[-4.0, 0.5, 0.0], [10.0, 200000.0, 3.0]])


def test_standardizing_transforms_first():
    standardized = Standardizer(task())(VALUES)
    v = VALUES.double().numpy()
    expected = np.stack([(v[:, 0] - 3) / 2, (np.log(v[:, 1]) - 7) / 0.5, (np.log1p(v[:, 2]) - 1) / 0.25], axis=1)
    np.testing.assert_allclose(standardized.numpy(), expected, rtol=1e-5)


def test_inverse_gives_the_values_back():
    standardizer = Standardizer(task())
    back = standardizer.inverse(standardizer(VALUES))
    assert back.dtype == torch.float32
    torch.testing.assert_close(back, VALUES, rtol=1e-5, atol=1e-6)


def test_inverse_of_wild_outputs_is_finite():
    wild = torch.tensor([[3e38, 1e4, 1e4], [-3e38, -1e4, -1e4]])
    values = Standardizer(task()).inverse(wild)
    largest = torch.finfo(torch.float32).max
    assert values.isfinite().all()
    assert values[0].tolist() == [largest] * 3
    assert values[1].tolist() == [-largest, 0, -1]
    assert Standardizer(task()).inverse(torch.full((1, 3), torch.nan)).isnan().all()


def test_the_statistics_travel_with_the_model():
    state = linear(LinearOptions(), context()).state_dict()
    other = linear(LinearOptions(), context(mean=(0, 0, 0), std=(1, 1, 1), transforms=("none",) * 3))
    other.load_state_dict(state)
    levels, given = features(), batch(values=VALUES)
    original = linear(LinearOptions(), context())
    original.load_state_dict(state)
    ours, theirs = (head.predict(head(levels, given), given) for head in (other, original))
    assert all(torch.equal(mine["values"], yours["values"]) for mine, yours in zip(ours, theirs, strict=True))
    assert torch.equal(other(levels, given)["standardized_targets"], original(levels, given)["standardized_targets"])


def test_linear_reads_the_mean_of_the_last_level():
    head = linear(LinearOptions(), context())
    levels = features()
    layer = head.regressor[-1]
    expected = levels["c2"].flatten(2).mean(-1) @ layer.weight.T + layer.bias
    torch.testing.assert_close(head(levels, batch())["standardized"], expected)


def test_mlp_has_the_layers_that_were_asked_for():
    head = mlp(MlpOptions(hidden=[7, 4], activation="silu", dropout=0.1), context())
    widths = [(layer.in_features, layer.out_features) for layer in head.regressor if isinstance(layer, nn.Linear)]
    assert widths == [(6, 7), (7, 4), (4, 3)]
    assert sum(isinstance(layer, nn.SiLU) for layer in head.regressor) == 2
    # No dropout behind the last layer: the predicted values are never dropped.
    assert isinstance(head.regressor[-1], nn.Linear)


@pytest.mark.parametrize(
    "head",
    [linear(LinearOptions(dropout=0.5), context()), mlp(MlpOptions(dropout=0.5), context())],
    ids=["linear", "mlp"],
)
def test_dropout_only_in_training(head):
    levels = features()
    assert not torch.equal(head(levels, batch())["standardized"], head(levels, batch())["standardized"])
    head.eval()
    assert torch.equal(head(levels, batch())["standardized"], head(levels, batch())["standardized"])


def test_targets_are_standardized_where_there_are_some():
    head = linear(LinearOptions(), context())
    assert set(head(features(), batch())) == {"standardized"}
    output = head(features(), batch(values=VALUES))
    torch.testing.assert_close(output["standardized_targets"], head.standardizer(VALUES))


def test_bf16_outputs_keep_exact_targets_and_float32_predictions():
    head = linear(LinearOptions(), context())
    with torch.autocast("cpu", torch.bfloat16):
        output = head(features(), batch(values=VALUES))
    assert output["standardized"].dtype == torch.bfloat16
    assert torch.equal(output["standardized_targets"], head.standardizer(VALUES))
    predictions = head.predict(output, batch())
    assert all(p["values"].dtype == torch.float32 and p["values"].isfinite().all() for p in predictions)
    assert [tuple(p["values"].shape) for p in predictions] == [(3,), (3,)]


def test_gradients_reach_the_features_and_not_the_statistics():
    head = mlp(MlpOptions(), context())
    levels = {name: level.requires_grad_() for name, level in features().items()}
    head(levels, batch())["standardized"].square().sum().backward()
    assert levels["c2"].grad.abs().sum() > 0
    assert {name for name, _ in head.named_parameters()} == {
        f"regressor.{layer}.{kind}" for layer in (0, 3) for kind in ("weight", "bias")
    }
