"""A comparison as a picture: the metric of every run, and beside it what each strategy costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes

from ftengine.chart import COLOURS, INK, grid, plain, save
from ftengine.compare.report import Report, Row
from ftengine.compare.stats import duration, interval, number
from ftengine.compare.tables import count, size


def draw(report: Report, path: Path) -> None:
    """A PNG: a row a strategy, best on top. Left every seed, and the mean with its interval; right bars."""
    panels: list[tuple[str, Callable[[Row], float | None], Callable[[float], str]]] = [
        ("time a run", lambda row: row.seconds, duration),
        ("trained parameters", lambda row: row.trained, lambda value: count(round(value))),
        ("peak memory", lambda row: row.memory, lambda value: size(round(value))),
        ("moved", lambda row: row.moved, lambda value: number(value, 2)),
    ]
    if report.comparison.retain is not None:
        panels.append(("lost on the retain data", _lost, lambda value: number(value, 2)))
    rows = report.rows
    chart, ((left, *right),) = grid(6.5 + 1.9 * len(panels), 1.9 + 0.42 * len(rows), columns=1 + len(panels))
    layout = left.get_gridspec()
    assert layout is not None
    layout.set_width_ratios([3.2, *[1.0] * len(panels)])
    _metric(report, left)
    for axes, (title, value, text) in zip(right, panels, strict=True):
        _bars(axes, rows, title, value, text)
    left.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=11, color=INK)
    for axes in (left, *right):
        axes.set_ylim(len(rows) - 0.4, -0.6)
    save(chart, path)


def _lost(row: Row) -> float | None:
    return None if row.lost is None else sum(row.lost.values()) / len(row.lost)


def _metric(report: Report, axes: Axes) -> None:
    for y, row in enumerate(report.rows):
        recommended = report.recommendation is not None and report.recommendation.strategy == row.name
        colour = COLOURS[2] if recommended else COLOURS[0]
        values = list(row.values.values())
        if not values:
            axes.text(
                0.5, y, "failed", transform=axes.get_yaxis_transform(), color=COLOURS[1], ha="center", va="center"
            )
            continue
        axes.plot(values, [y + 0.22] * len(values), "|", color=colour, alpha=0.8, markersize=9)
        found = interval(values)
        axes.errorbar(found.mean, y, xerr=found.half, fmt="o", color=colour, capsize=4, markersize=7, linewidth=2)
    comparison = report.comparison
    better = "smaller" if comparison.mode == "min" else "larger"
    axes.set_xlabel(f"{plain(comparison.metric)} on {report.split} ({better} is better)")
    parts = ["dot: mean", "line: 95 % interval", "ticks: seeds"] if len(comparison.seeds) > 1 else ["one seed"]
    if report.recommendation is not None:
        parts.append("green: recommended")
    axes.set_title(", ".join(parts), fontsize=9, loc="left")


def _label(row: Row) -> str:
    missing = "" if row.finished == row.planned else f" ({row.finished} of {row.planned})"
    return plain(row.name) + missing


def _bars(
    axes: Axes, rows: list[Row], title: str, value: Callable[[Row], float | None], text: Callable[[float], str]
) -> None:
    values = [value(row) for row in rows]
    known = [number for number in values if number is not None]
    axes.barh(range(len(rows)), [number or 0.0 for number in values], color=COLOURS[5], height=0.6)
    low, high = min([0.0, *known]), max([0.0, *known])
    room = (high - low) or 1.0
    axes.set_xlim(low - (0.65 * room if low < 0 else 0), high + 0.65 * room)  # for the numbers beside the bars
    for y, found in enumerate(values):
        shown = "-" if found is None else text(found)
        end = found or 0.0
        axes.annotate(
            shown, (end, y), (4 if end >= 0 else -4, 0), textcoords="offset points", va="center",
            ha="left" if end >= 0 else "right", fontsize=9, color=INK,
        )  # fmt: skip
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[["bottom"]].set_visible(False)
