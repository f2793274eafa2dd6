"""The metrics against the library's, against their definitions, and over merged batches."""

import math
import pickle

import numpy as np
import pytest
import torch
from ftengine_metric_learning.metrics import Retrieval, Verification, draw_pairs
from ftengine_metric_learning.options import RetrievalOptions, VerificationOptions
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn.metrics import roc_auc_score

from ftengine.protocols import MetricContext


def retrieval(**options):
    return Retrieval(RetrievalOptions(**options), MetricContext(None))


def verification(**options):
    return Verification(VerificationOptions(**options), MetricContext(None))


def fed(metric, embeddings, labels, size=None):
    for batch in zip(embeddings.split(size or len(labels)), labels.split(size or len(labels)), strict=True):
        metric.update([{"embedding": row} for row in batch[0]], {"label": batch[1]})
    return metric


@pytest.mark.parametrize("seed", range(3))
def test_retrieval_is_what_the_library_computes(draw, seed):
    embeddings, labels = draw(seed=seed)
    knn = CustomKNN(CosineSimilarity())  # its default needs faiss
    names = ("precision_at_1", "mean_average_precision_at_r")
    expected = AccuracyCalculator(include=names, k="max_bin_count", knn_func=knn).get_accuracy(embeddings, labels)
    values = fed(retrieval(), embeddings, labels).compute()
    assert values["recall_at_1"] == pytest.approx(expected["precision_at_1"])
    assert values["map_at_r"] == pytest.approx(expected["mean_average_precision_at_r"])


def test_recall_at_k_is_its_definition(draw):
    embeddings, labels = draw(noise=2.0)
    values = fed(retrieval(k=(3, 10, 1000)), embeddings, labels).compute()
    cosines = (embeddings @ embeddings.T).numpy()
    np.fill_diagonal(cosines, -np.inf)
    ranked = labels.numpy()[np.argsort(-cosines, axis=1)[:, :-1]] == labels.numpy()[:, None]
    assert set(values) == {"recall_at_1", "recall_at_3", "recall_at_10", "recall_at_1000", "map_at_r"}
    for k in (1, 3, 10, 1000):
        assert values[f"recall_at_{k}"] == pytest.approx(ranked[:, :k].any(1).mean())
    assert values["recall_at_1"] < values["recall_at_10"] <= values["recall_at_1000"] == 1


def test_an_image_alone_in_its_class_does_not_count():
    embeddings = torch.eye(4)[[0, 0, 1, 1, 2]] + 0.1
    labels = torch.tensor([0, 0, 1, 1, 2])
    assert fed(retrieval(), embeddings, labels).compute()["map_at_r"] == 1
    alone = fed(retrieval(), torch.eye(4), torch.arange(4)).compute()
    assert all(math.isnan(value) for value in alone.values())
    assert set(alone) == {"recall_at_1", "recall_at_5", "map_at_r"}


def test_nothing_seen_has_no_value():
    for metric in (retrieval(), verification()):
        assert all(math.isnan(value) for value in metric.compute().values())
        assert metric.details() == {}


def test_verification_is_of_the_pairs_that_were_drawn(draw):
    embeddings, labels = draw()
    metric = fed(verification(pairs=400, far=0.05), embeddings, labels)
    first, second = draw_pairs(labels.numpy(), 200, 0)
    same = labels[first] == labels[second]
    assert same.sum() == 200
    cosines = (embeddings[first] * embeddings[second]).sum(1)
    values = metric.compute()
    assert values["verification_auc"] == pytest.approx(roc_auc_score(same, cosines))
    best = max(((cosines >= limit) == same).float().mean().item() for limit in cosines)
    assert values["verification_accuracy"] == pytest.approx(best)
    threshold = metric.details()["threshold"]
    assert ((cosines >= threshold) == same).float().mean().item() == pytest.approx(best)
    allowed = [limit for limit in cosines if (cosines[~same] >= limit).float().mean() <= 0.05]
    tar = max((cosines[same] >= limit).float().mean().item() for limit in allowed)
    assert values["verification_tar"] == pytest.approx(tar)


def test_perfect_and_useless_embeddings():
    labels = torch.arange(40) % 4
    perfect = fed(verification(), torch.eye(4)[labels], labels).compute()
    assert perfect == {"verification_auc": 1, "verification_accuracy": 1, "verification_tar": 1}
    useless = fed(verification(), torch.ones(40, 4), labels).compute()
    assert useless == {"verification_auc": 0.5, "verification_accuracy": 0.5, "verification_tar": 0}


def test_pairs_follow_from_seed_and_labels():
    labels = np.random.default_rng(0).integers(0, 20, 100)
    one, two = draw_pairs(labels, 5000, 0)
    again = draw_pairs(labels, 5000, 0)
    assert np.array_equal(one, again[0])
    assert np.array_equal(two, again[1])
    assert not np.array_equal(two, draw_pairs(labels, 5000, 1)[1])
    assert (labels[one] == labels[two]).tolist() == [True] * 5000 + [False] * 5000
    assert (one != two).all()
    assert (
        len(set(zip(one[:5000], two[:5000], strict=True))) == (labels[:, None] == labels).sum() - 100
    )  # all there are
    assert draw_pairs(np.zeros(5, int), 3, 0) is None
    assert draw_pairs(np.arange(5), 3, 0) is None


@pytest.mark.parametrize("make", [retrieval, verification])
def test_batches_and_merging_change_nothing(make, draw):
    embeddings, labels = draw(100)
    whole = fed(make(), embeddings, labels).compute()
    assert fed(make(), embeddings, labels, size=7).compute() == whole
    one, other = fed(make(), embeddings[:30], labels[:30], 8), fed(make(), embeddings[30:], labels[30:], 9)
    one.merge(pickle.loads(pickle.dumps(other)))
    assert one.compute() == whole
    with pytest.raises(TypeError, match="cannot merge"):
        one.merge(verification() if make is retrieval else retrieval())


def test_numbers_that_broke_have_no_value(draw):
    embeddings, labels = draw()
    embeddings[3] = math.nan
    for metric in (retrieval(), verification()):
        assert all(math.isnan(value) for value in fed(metric, embeddings, labels).compute().values())
