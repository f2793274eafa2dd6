from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ftengine.protocols import Batch, Frame, HeadContext, LabelMap
from ftengine_classification.heads import linear, mlp
from ftengine_classification.options import LinearOptions, MlpOptions

BATCH = Batch(images=torch.zeros(4, 3, 8, 8), targets={}, ids=["a", "b", "c", "d"], frames=[Frame.whole(8, 8)] * 4)


def context(multi_label=False):
    task = SimpleNamespace(labels=LabelMap(("a", "b", "c")), multi_label=multi_label)
    return HeadContext(channels={"c1": 5, "c2": 6}, strides={"c1": 2, "c2": 4}, task=task)


def features():
    generator = torch.Generator().manual_seed(0)
    return {"c1": torch.randn(4, 5, 4, 4, generator=generator), "c2": torch.randn(4, 6, 2, 3, generator=generator)}


def test_linear_reads_the_mean_of_the_last_level():
    head = linear(LinearOptions(), context())
    levels = features()
    logits = head(levels, BATCH)["logits"]
    layer = head.classifier[-1]
    expected = levels["c2"].flatten(2).mean(-1) @ layer.weight.T + layer.bias
    torch.testing.assert_close(logits, expected)
    assert logits.shape == (4, 3)


def test_a_pooled_descriptor_is_read_as_it_is():
    head = linear(LinearOptions(), context())
    pooled = torch.randn(4, 6, 1, 1)
    torch.testing.assert_close(head({"c2": pooled}, BATCH)["logits"], head.classifier(pooled[:, :, 0, 0]))


def test_mlp_has_the_layers_that_were_asked_for():
    head = mlp(MlpOptions(hidden=[7, 4], activation="gelu", dropout=0.1), context())
    widths = [(layer.in_features, layer.out_features) for layer in head.classifier if isinstance(layer, nn.Linear)]
    assert widths == [(6, 7), (7, 4), (4, 3)]
    assert sum(isinstance(layer, nn.GELU) for layer in head.classifier) == 2
    # No dropout behind the last layer: the logits are never dropped.
    assert isinstance(head.classifier[-1], nn.Linear)
    assert head(features(), BATCH)["logits"].shape == (4, 3)


@pytest.mark.parametrize(
    "head",
    [linear(LinearOptions(dropout=0.5), context()), mlp(MlpOptions(dropout=0.5), context())],
    ids=["linear", "mlp"],
)
def test_dropout_only_in_training(head):
    levels = features()
    assert not torch.equal(head(levels, BATCH)["logits"], head(levels, BATCH)["logits"])
    head.eval()
    assert torch.equal(head(levels, BATCH)["logits"], head(levels, BATCH)["logits"])


def test_scores_are_the_softmax():
    head = linear(LinearOptions(), context())
    output = head(features(), BATCH)
    predictions = head.predict(output, BATCH)
    scores = torch.stack([prediction["scores"] for prediction in predictions])
    torch.testing.assert_close(scores, output["logits"].detach().softmax(-1))
    assert scores.dtype == torch.float32
    assert not scores.requires_grad


def test_multi_label_scores_are_sigmoids():
    head = linear(LinearOptions(), context(multi_label=True))
    output = head(features(), BATCH)
    scores = torch.stack([prediction["scores"] for prediction in head.predict(output, BATCH)])
    torch.testing.assert_close(scores, output["logits"].detach().sigmoid())


def test_bf16_logits_give_float32_scores():
    head = linear(LinearOptions(), context())
    with torch.autocast("cpu", torch.bfloat16):
        output = head(features(), BATCH)
    assert output["logits"].dtype == torch.bfloat16
    scores = head.predict(output, BATCH)[0]["scores"]
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.sum(), torch.tensor(1.0))


def test_gradients_reach_the_features():
    head = mlp(MlpOptions(), context())
    levels = {name: level.requires_grad_() for name, level in features().items()}
    head(levels, BATCH)["logits"].square().sum().backward()
    assert levels["c2"].grad.abs().sum() > 0
    assert levels["c1"].grad is None


def test_options_out_of_range_are_refused():
    with pytest.raises(ValidationError, match="dropout"):
        LinearOptions(dropout=1.0)
    with pytest.raises(ValidationError, match="hidden"):
        MlpOptions(hidden=[])
