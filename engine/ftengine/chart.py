"""What charts have in common: figures without global state, colours that all can tell apart, PNGs that are whole.

A figure comes from :func:`figure`, not from pyplot, whose list of open figures is the process's: nothing needs to be
closed, no window can open, and a program that draws with pyplot itself is not disturbed::

    chart, axes = figure(8, 4.5)
    axes.plot(rates, losses, color=COLOURS[0])
    save(chart, directory / "losses.png")
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ftengine.files import whole

__all__ = ["COLOURS", "FAINT", "INK", "figure", "grid", "plain", "save"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#882255")
"""For lines and marks on white: those of Okabe and Ito (2008) but yellow and black, and two of Paul Tol's (2021)."""

INK, FAINT = "#222222", "#9A9A9A"
"""Text and axes; what is only there for comparison."""

DPI = 120
"""Pixels an inch of the PNG: a figure of 8 by 4.5 inches is 960 by 540 pixels."""


def figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A white figure of `width` by `height` inches with one pair of axes, with a faint grid."""
    chart, ((axes,),) = grid(width, height)
    return chart, axes


def grid(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[list[Axes]]]:
    """A figure with `rows` by `columns` pairs of axes, as lists of rows; what stands around them fits by itself."""
    chart = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(chart)
    made = [list(row) for row in chart.subplots(rows, columns, squeeze=False)]
    for row in made:
        for axes in row:
            _style(axes)
    return chart, made


def _style(axes: Axes) -> None:
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.grid(True, color="#E6E6E6", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(which="both", color=FAINT, labelcolor=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.title.set_color(INK)


def plain(text: str) -> str:
    """`text`, a name of the user's, as matplotlib shows it unchanged: a ``$`` in it begins no formula."""
    return text.replace("$", r"\$")


def save(chart: Figure, path: Path) -> None:
    """Write `chart` as a PNG that appears whole or not at all; its folder is made."""
    with whole(path) as temporary:
        chart.savefig(temporary, format="png")
