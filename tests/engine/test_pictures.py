"""Pictures for people: boxes, overlays, side by side."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ftengine import pictures
from ftengine.pictures import beside, draw_boxes, overlay, palette
from ftengine.protocols import IGNORE


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def test_no_torch_is_imported():
    code = "import sys, ftengine.pictures; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    assert pictures.IGNORE == IGNORE


def test_palette_is_distinct_and_a_colour_keeps_its_place():
    colours = palette(255)
    assert colours.dtype == np.uint8
    assert colours.shape == (255, 3)
    assert len(np.unique(colours, axis=0)) == 255
    np.testing.assert_array_equal(palette(7), colours[:7])
    assert palette(0).shape == (0, 3)
    few = colours[:40].astype(int)
    distances = np.abs(few[:, None] - few[None]).sum(-1) + 1000 * np.eye(40, dtype=int)
    assert distances.min() > 30


def test_a_box_is_framed_in_its_colour_at_its_place():
    image = grey(600, 800)
    drawn = draw_boxes(image, np.array([[100.0, 200.0, 300.0, 400.0]]), np.array([3]), [""])
    assert drawn.shape == image.shape
    rows, columns = np.nonzero((drawn == palette(4)[3]).all(-1))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (100, 200, 300, 400)
    np.testing.assert_array_equal(drawn[210:390, 110:290], image[210:390, 110:290])  # what is in it stays visible
    np.testing.assert_array_equal(image, grey(600, 800))


def test_small_images_are_enlarged_with_their_boxes():
    drawn = draw_boxes(grey(48, 64), np.array([[8.0, 16.0, 32.0, 40.0]]), np.array([0]), [""])
    assert drawn.shape == (48 * 8, 64 * 8, 3)
    rows, columns = np.nonzero((drawn == palette(1)[0]).all(-1))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (64, 128, 256, 320)


@pytest.mark.parametrize("box", [[-50, -50, 30, 30], [770, 570, 900, 900], [0, 0, 800, 600], [799.6, 599.6, 800, 600]])
def test_boxes_at_and_beyond_the_edges_keep_their_captions_inside(box):
    def ground(box):
        """How large the patch is that the caption covers."""
        drawn = draw_boxes(grey(600, 800), np.array([box]), np.array([0]), ["a caption"])
        rows, columns = np.nonzero((drawn == palette(1)[0]).all(-1))
        found = drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        return (found == palette(1)[0]).all(-1).sum()

    inside = np.array([300, 300, 360, 360])
    bare = draw_boxes(grey(600, 800), inside[None], np.array([0]), [""])
    assert ground(box) >= ground(inside) - (bare == palette(1)[0]).all(-1).sum()


def test_captions_stay_off_each_other():
    boxes = np.array([[200.0, 200.0, 400.0, 400.0]] * 3)
    taken = [
        (draw_boxes(grey(600, 800), boxes[:n], np.arange(n), ["one", "two", "three"][:n]) == palette(3)[n - 1]).all(-1)
        for n in (1, 2, 3)
    ]
    together = draw_boxes(grey(600, 800), boxes, np.arange(3), ["one", "two", "three"])
    for label, alone in enumerate(taken[1:], start=1):
        shown = (together == palette(3)[label]).all(-1)
        assert shown.sum() >= 0.9 * alone.sum()


def test_the_first_box_is_on_top():
    drawn = draw_boxes(grey(600, 800), np.array([[100, 100, 300, 300]] * 2), np.array([0, 1]), ["", ""])
    assert not (drawn == palette(2)[1]).all(-1).any()


def test_no_boxes_and_boxes_that_are_not_finite_draw_nothing():
    image = grey(600, 800)
    np.testing.assert_array_equal(draw_boxes(image, np.zeros((0, 4)), np.zeros(0, int), []), image)
    lost = np.array([[np.nan, 0, 10, 10], [0, 0, np.inf, 10]])
    np.testing.assert_array_equal(draw_boxes(image, lost, np.array([0, 1]), ["a", "b"]), image)


def test_captions_longer_than_the_picture_are_cut():
    drawn = draw_boxes(grey(600, 60), np.array([[0, 100, 60, 200]]), np.array([0]), ["a very long name indeed 0.99"])
    assert drawn.shape == (600, 60, 3)


def test_counts_that_differ_are_refused():
    with pytest.raises(ValueError, match="2 boxes with 1 labels and 2 captions"):
        draw_boxes(grey(64, 64), np.zeros((2, 4)), np.array([0]), ["a", "b"])


def test_an_overlay_colours_classes_and_leaves_the_ignored():
    mask = np.full((600, 800), IGNORE, np.uint8)
    mask[:100, :100] = 2
    image = grey(600, 800)
    drawn = overlay(image, mask, ("a", "b", "c"), opacity=0.25)
    assert drawn.shape[0] > 600  # the legend
    assert drawn.shape[1] == 800
    np.testing.assert_array_equal(drawn[100:600], image[100:])
    np.testing.assert_array_equal(drawn[50, 50], np.round(0.75 * 128 + 0.25 * palette(3)[2].astype(float)))
    legend = drawn[600:]
    assert (legend == palette(3)[2]).all(-1).sum() > 50  # only what occurs
    assert not (legend == palette(3)[0]).all(-1).any()


def test_an_overlay_of_many_classes_shows_them_all():
    mask = np.arange(255, dtype=np.uint8).reshape(15, 17).repeat(4, 0).repeat(4, 1)
    drawn = overlay(grey(60, 68), mask, [f"class {i}" for i in range(255)])
    legend = drawn[60 * 7 :].reshape(-1, 3)
    shown = {tuple(colour) for colour in legend.tolist()}
    assert {tuple(colour) for colour in palette(255).tolist()} <= shown


def test_names_in_the_legend_of_a_narrow_picture():
    mask = np.zeros((600, 20), np.uint8)
    named, unnamed = (overlay(grey(600, 20), mask, (name,)) for name in ("cat", ""))
    np.testing.assert_array_equal(named[:600], unnamed[:600])
    assert (named[600:] != unnamed[600:]).any()
    assert (named[:600, 20:] == 255).all()


def test_an_overlay_of_nothing_is_the_image():
    image = grey(600, 800)
    np.testing.assert_array_equal(overlay(image, np.full((600, 800), IGNORE, np.uint8), ()), image)


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="a mask of 4×5 on an image of 64×64"):
        overlay(grey(64, 64), np.zeros((4, 5), np.uint8), ("a",))
    with pytest.raises(ValueError, match="class 3 and 2 names"):
        overlay(grey(8, 8), np.full((8, 8), 3, np.uint8), ("a", "b"))


def test_beside_holds_both_pictures_unchanged_under_titles():
    left, right = grey(512, 600), np.full((600, 512, 3), 40, np.uint8)
    sheet = beside({"truth": left, "prediction": right})
    top = sheet.shape[0] - 600
    np.testing.assert_array_equal(sheet[top : top + 512, :600], left)
    np.testing.assert_array_equal(sheet[top:, -512:], right)
    assert (sheet[:top, :600] < 100).any()
    assert (sheet[:top, -512:] < 100).any()
    with pytest.raises(ValueError, match="no picture"):
        beside({})


def test_titles_of_narrow_pictures_are_whole():
    wide = beside({"prediction": grey(600, 400)})
    narrow = beside({"prediction": grey(600, 20)})
    top = narrow.shape[0] - 600
    assert (narrow[:top] < 128).sum() == (wide[:top] < 128).sum()


def test_names_beyond_ascii_are_written_where_a_font_has_them(monkeypatch):
    boxes, labels = np.array([[300, 300, 400, 400]]), np.array([0])
    drawn = draw_boxes(grey(600, 800), boxes, labels, ["größe"])
    if pictures._font(14, frozenset("ö")).getname()[0] != pictures._font(14, frozenset("o")).getname()[0]:
        assert (drawn != draw_boxes(grey(600, 800), boxes, labels, ["grüße"])).any()
    monkeypatch.setattr(pictures, "FONTS", ("no such font.ttf",))
    pictures._font.cache_clear()
    assert draw_boxes(grey(600, 800), boxes, labels, ["größe"]).shape == (600, 800, 3)
    pictures._font.cache_clear()


def test_of_the_fonts_the_one_that_lacks_least_is_taken():
    written, other = (
        draw_boxes(grey(600, 800), np.array([[300, 300, 400, 400]]), np.array([0]), [f"größe \U0010fffd{name}"])
        for name in ("ö", "ü")
    )
    if pictures._font(14, frozenset("ö")).getname()[0] != pictures._font(14, frozenset("o")).getname()[0]:
        assert (written != other).any()
