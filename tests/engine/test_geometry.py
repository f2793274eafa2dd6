"""Images, boxes and masks brought to size together, and the way back."""

import numpy as np
import pytest
import torch

from ftengine.config import ImageConfig
from ftengine.geometry import Scene, fit_scene, padded, placed
from ftengine.protocols import IGNORE, Frame

BOX = (30, 10, 70, 40)  # x1 y1 x2 y2


def scene(height=60, width=100):
    """A black image with a white box, and its mask."""
    image = np.zeros((height, width, 3), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    image[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
    return Scene(image, np.array([BOX], np.float64), mask)


def config(fit, size=None, max_size=None):
    return ImageConfig.model_validate({"fit": fit, "size": size, "max_size": max_size})


CASES = [
    (config("stretch", [90, 80]), (90, 80)),
    (config("pad", [120, 120]), (120, 120)),
    (config("pad", [40, 120]), (40, 120)),
    (config("shorter", 30, 1000), (30, 50)),
    (config("shorter", 120, 150), (90, 150)),
    (config("none"), (60, 100)),
]


@pytest.mark.parametrize(("image", "size"), CASES, ids=lambda value: getattr(value, "fit", None))
def test_box_and_mask_stay_on_the_object(image, size):
    fitted, frame = fit_scene(scene(), image)
    assert fitted.size == frame.size == size
    assert fitted.mask.shape == size
    white = fitted.image[..., 0] > 127
    rows, columns = np.nonzero(white)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(fitted.boxes[0], seen, atol=1)
    assert ((fitted.mask == 1) != white).mean() < 0.03
    top, left, height, width = (round(value) for value in frame.content)
    outside = np.ones(size, bool)
    outside[top : top + height, left : left + width] = False
    assert (fitted.mask[outside] == IGNORE).all()
    assert (fitted.mask[~outside] != IGNORE).all()


@pytest.mark.parametrize(("image", "size"), CASES, ids=lambda value: getattr(value, "fit", None))
def test_the_frame_leads_back_to_the_original(image, size):
    fitted, frame = fit_scene(scene(), image)
    back = frame.to_original(torch.from_numpy(fitted.boxes))
    np.testing.assert_allclose(back[0], BOX, atol=1e-9)
    tensor = torch.zeros(1, *padded(size))
    tensor[0, : size[0], : size[1]] = torch.from_numpy(fitted.mask == 1)
    restored = frame.restore(tensor)
    assert restored.shape == (1, 60, 100)
    assert ((restored[0].numpy() > 0.5) != (scene().mask == 1)).mean() < 0.03


def test_boxes_beyond_the_image_are_cut_off():
    frame = Frame((50, 100), (25, 50), (0.0, 0.0, 25.0, 50.0))
    back = frame.to_original(torch.tensor([[-5.0, 3.0, 60.0, 30.0]]))
    assert back.tolist() == [[0.0, 6.0, 100.0, 50.0]]


def test_a_crop_is_placed_as_the_image_is_cut():
    frame = placed((60, 100), config("crop", 30))
    assert frame.content == (0.0, -10.0, 30.0, 50.0)
    fitted, _ = fit_scene(Scene(scene().image), config("crop", 30))
    columns = np.nonzero(fitted.image[10, :, 0] > 127)[0]
    expected = (np.array([BOX[0], BOX[2]]) * 0.5 - 10).tolist()
    assert [columns.min(), columns.max() + 1] == pytest.approx(expected, abs=1)
    with pytest.raises(ValueError, match="no map of its whole"):
        frame.restore(torch.zeros(1, 30, 30))


@pytest.mark.parametrize(("size", "multiple"), [((1, 32), (32, 32)), ((33, 64), (64, 64)), ((480, 353), (480, 384))])
def test_sizes_are_padded_to_32(size, multiple):
    assert padded(size) == multiple
