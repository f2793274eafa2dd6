"""The `digits` dataset."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.datasets import load_digits

from ftengine.protocols import DatasetContext
from ftengine_datasets.digits import digits
from ftengine_datasets.options import DigitsOptions


def load(**options):
    return digits(DigitsOptions(**options), DatasetContext(split="train"))


def test_images_and_labels_are_those_of_scikit_learn():
    data, source = load(), load_digits()
    assert len(data) == 1797
    assert data.names == {"label": tuple("0123456789"), "values": ("value",)}
    image = data.image(5)
    assert image.shape == (8, 8, 3)
    assert image.dtype == np.uint8
    assert max(data.image(i).max() for i in range(10)) == 255
    for channel in range(3):
        np.testing.assert_allclose(image[..., channel] / 255 * 16, source.images[5], atol=0.04)
    assert [data.target(i)["label"] for i in range(20)] == source.target[:20].tolist()
    assert data.sample_id(1) == "digit-0001"


def test_values_follow_the_order_of_targets():
    data = load(targets=("ink", "value"))
    target = data.target(3)
    assert data.names["values"] == ("ink", "value")
    assert target["values"].dtype == np.float32
    assert target["values"][1] == target["label"]
    assert target["values"][0] == pytest.approx(data.image(3).mean() / 255, abs=1e-3)


def test_limit_and_pickling():
    data = pickle.loads(pickle.dumps(load(limit=7)))
    assert len(data) == 7
    np.testing.assert_array_equal(data.image(6), load().image(6))


def test_what_image_returns_may_be_written_to():
    data = load(limit=2)
    data.image(0)[:] = 0
    assert data.image(0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": "digits/val"}, "the digits are one set"),
        ({"train": "x"}, "`val_fraction`"),
        ({"targets": []}, "at least 1"),
        ({"targets": ["ink", "ink"]}, "twice"),
        ({"targets": ["weight"]}, "'value', 'ink' or 'count'"),
        ({"limit": 0}, "greater than or equal to 1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValidationError, match=message):
        DigitsOptions(**options)
