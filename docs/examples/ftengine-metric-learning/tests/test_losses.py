"""The losses are the library's, in float32, and have what they learn in the model."""

import math

import pytest
import torch
from ftengine_metric_learning import losses
from ftengine_metric_learning.head import EmbeddingHead
from ftengine_metric_learning.options import ArcFaceOptions, ContrastiveOptions, TripletOptions
from pydantic import ValidationError
from torch.nn import functional as F

from ftengine.errors import FtengineError
from ftengine.protocols import Batch, Frame, LabelMap, LossContext


class FittedTask:
    labels = LabelMap(("a", "b", "c", "d", "e"))


CONTEXT = LossContext(FittedTask(), EmbeddingHead("c5", 4, 8, 0.0))


def value(loss, embeddings, labels):
    ids = [str(index) for index in range(len(labels))]
    batch = Batch(torch.zeros(len(labels), 3, 1, 1), {"label": labels}, ids, [Frame.whole(1, 1)] * len(labels))
    ((_, term),) = loss({"embedding": embeddings}, batch).items()
    return term


def test_arcface_is_its_formula(draw):
    embeddings, labels = draw()
    loss = losses.arcface(ArcFaceOptions(margin=20, scale=10), CONTEXT)
    assert {name: tuple(own.shape) for name, own in loss.named_parameters()} == {"inner.W": (8, 5)}
    cosines = embeddings @ F.normalize(loss.inner.W.detach(), dim=0)
    angle = cosines.acos() + math.radians(20) * F.one_hot(labels, 5)
    assert angle.max() <= math.pi  # beyond it the library's formula is another
    assert value(loss, embeddings, labels).item() == pytest.approx(F.cross_entropy(10 * angle.cos(), labels).item())


def test_arcface_has_a_finite_gradient_in_the_very_direction_of_a_class():
    loss = losses.arcface(ArcFaceOptions(), CONTEXT)
    with torch.no_grad():
        loss.inner.W.copy_(torch.eye(8)[:, :5])
    embeddings = torch.stack([torch.eye(8)[0], -torch.eye(8)[1]]).requires_grad_()
    value(loss, embeddings, torch.tensor([0, 1])).backward()
    assert embeddings.grad.isfinite().all()
    assert loss.inner.W.grad.isfinite().all()
    assert loss.inner.W.grad.abs().max() > 0


@pytest.mark.parametrize("head", [None, torch.nn.Identity()])
def test_arcface_needs_to_know_the_size(head):
    with pytest.raises(FtengineError, match="expected an attribute `size`"):
        losses.arcface(ArcFaceOptions(), LossContext(FittedTask(), head))


def triplets(embeddings, labels):
    """How much each triplet breaks the order, and whether it counts."""
    distances = (embeddings[:, None] - embeddings).norm(dim=-1)
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(labels), dtype=torch.bool)
    return distances[:, :, None] - distances[:, None, :], positive[:, :, None] & ~same[:, None, :], distances, same


@pytest.mark.parametrize("miner", ["all", "semihard", "hard", "batch_hard"])
def test_triplet_is_its_definition(draw, miner):
    embeddings, labels = draw(20)
    difference, chosen, distances, same = triplets(embeddings, labels)
    if miner == "batch_hard":
        terms = (distances * same).amax(1) - distances.masked_fill(same, math.inf).amin(1) + 0.2
    else:
        chosen = chosen & {"all": difference > -0.2, "semihard": difference < 0, "hard": difference >= 0}[miner]
        terms = difference[chosen] + 0.2
    expected = terms[terms > 0].mean()
    loss = losses.triplet(TripletOptions(miner=miner), CONTEXT)
    assert value(loss, embeddings, labels).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]])
@pytest.mark.parametrize("miner", ["all", "semihard", "hard", "batch_hard", "distance_weighted"])
def test_a_batch_without_triplets_costs_nothing(miner, labels):
    embeddings = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0))).requires_grad_()
    term = value(losses.triplet(TripletOptions(miner=miner), CONTEXT), embeddings, torch.tensor(labels))
    term.backward()
    assert term.item() == 0
    assert embeddings.grad.abs().max() == 0


def test_what_a_miner_draws_comes_from_torch_s_generator_alone(draw):
    embeddings, labels = draw()
    loss = losses.triplet(TripletOptions(miner="distance_weighted"), CONTEXT)
    with torch.random.fork_rng(devices=[]):
        drawn = []
        for seed in (1, 1, 2):
            torch.default_generator.manual_seed(seed)  # as the engine does before a step
            drawn.append(value(loss, embeddings, labels).item())
    assert drawn[0] == drawn[1] != drawn[2]


def test_contrastive_is_its_definition(draw):
    embeddings, labels = draw(20)
    distances = (embeddings[:, None] - embeddings).norm(dim=-1)
    same = labels[:, None] == labels
    apart = (distances - 0.1)[same & ~torch.eye(20, dtype=torch.bool)]
    close = (0.8 - distances)[~same]
    expected = apart[apart > 0].mean() + close[close > 0].mean()
    loss = losses.contrastive(ContrastiveOptions(pos_margin=0.1, neg_margin=0.8), CONTEXT)
    assert value(loss, embeddings, labels).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        losses.arcface(ArcFaceOptions(), CONTEXT),
        losses.triplet(TripletOptions(distance="cosine"), CONTEXT),
        losses.contrastive(ContrastiveOptions(), CONTEXT),
    ],
)
def test_under_autocast_it_is_computed_in_single_precision(loss, draw):
    embeddings, labels = draw()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(value(loss, embeddings, labels), value(loss, embeddings, labels))
        term = value(loss, embeddings, labels)
    assert term.dtype == torch.float32
    assert torch.equal(term, value(loss, embeddings, labels))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (TripletOptions, {"miner": "distance_weighted", "distance": "cosine"}, "goes with `distance: euclidean`"),
        (ContrastiveOptions, {"pos_margin": 1, "neg_margin": 0.5}, "`pos_margin` 1 is not below `neg_margin` 0.5"),
    ],
)
def test_options_that_do_not_go_together_are_refused(model, options, message):
    with pytest.raises(ValidationError, match=message):
        model(**options)
