"""Charts: no global state of matplotlib is touched, and a file appears whole or not at all."""

import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ftengine.chart import COLOURS, figure, grid, plain, save


def test_a_saved_chart_is_a_picture_of_the_size_that_was_asked_for(tmp_path):
    chart, axes = figure(4, 3)
    axes.plot([1, 2, 3], [3, 1, 2], color=COLOURS[0])
    save(chart, tmp_path / "new" / "chart.png")
    with Image.open(tmp_path / "new" / "chart.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (480, 360))
        pixels = np.array(picture.convert("RGB"))
    assert (pixels[0, 0] == 255).all()
    line = np.array([int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)])
    assert (pixels == line).all(-1).sum() > 100, "the line is there, in its colour"


def test_axes_are_lists_of_rows():
    _, axes = grid(6, 4, rows=2, columns=3)
    assert [len(row) for row in axes] == [3, 3]
    assert len({id(one) for row in axes for one in row}) == 6


def test_no_figure_is_registered_and_no_setting_changes(tmp_path):
    settings = dict(mpl.rcParams)
    before = "matplotlib.pyplot" in sys.modules
    chart, axes = figure(3, 2)
    axes.set_title(plain("cost in $ or €"))
    save(chart, tmp_path / "chart.png")
    assert dict(mpl.rcParams) == settings
    assert ("matplotlib.pyplot" in sys.modules) == before
    if before:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_names_with_dollars_are_shown_as_they_are(tmp_path):
    chart, axes = figure(3, 2)
    axes.set_title(plain(r"$\frac$"))  # as a formula it would be an error
    save(chart, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 0


def test_a_chart_that_cannot_be_drawn_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "chart.png"
    path.write_bytes(b"before")

    class Broken(Figure):
        def savefig(self, file, **options):
            file.write_bytes(b"half")
            raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        save(Broken(), path)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("chart.png", b"before")]
