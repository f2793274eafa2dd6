"""What a learning-rate range test leaves: ``lr-find.json``, ``lr-find.csv`` and ``lr-find.png``."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ftengine.chart import COLOURS, FAINT, INK, figure, plain, save
from ftengine.files import write_text
from ftengine.lr_curve import ADVICE, DIVERGED, SMOOTHING, Curve, Suggestion

MARKS = {"steepest": ("s", COLOURS[1]), "valley": ("o", COLOURS[2])}


def write(
    directory: Path,
    name: str,
    config: Mapping[str, Any],
    curve: Curve,
    suggested: Mapping[str, Suggestion],
    warned: Sequence[str],
) -> list[Path]:
    """Write the three files, each whole; returns them. `name` stands above the picture, `config` in the JSON."""
    files = [directory / f"lr-find.{ending}" for ending in ("csv", "png", "json")]
    write_text(files[0], as_csv(curve))
    save(draw(name, curve, suggested), files[1])
    write_text(files[2], json.dumps(as_data(config, curve, suggested, warned), indent=1) + "\n")
    return files


def as_csv(curve: Curve) -> str:
    """A line a step, in full precision; the losses of a step whose loss was not finite are empty."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["step", "lr", "loss", "smoothed"])
    for step, point in enumerate(curve.points, 1):
        losses = ["" if math.isnan(value) else value for value in (point.loss, point.smoothed)]
        rows.writerow([step, point.lr, *losses])
    return text.getvalue()


def as_data(
    config: Mapping[str, Any], curve: Curve, suggested: Mapping[str, Suggestion], warned: Sequence[str]
) -> dict[str, Any]:
    """All there is to know of a test, as JSON data: null for a loss that was not finite."""

    def number(value: float) -> float | None:
        return None if math.isnan(value) else value

    return {
        "range": {"min": curve.lowest, "max": curve.highest, "steps": curve.steps, "smoothing": SMOOTHING},
        "end": {"kind": curve.end, "reason": curve.reason},
        "suggestions": {
            rule: {"lr": made.lr, "loss": made.loss, "reason": made.reason or None} for rule, made in suggested.items()
        },
        "advice": {"rule": ADVICE, "lr": suggested[ADVICE].lr, "warnings": list(warned)},
        "points": [
            {"step": step, "lr": point.lr, "loss": number(point.loss), "smoothed": number(point.smoothed)}
            for step, point in enumerate(curve.points, 1)
        ],
        "config": dict(config),
    }


def draw(name: str, curve: Curve, suggested: Mapping[str, Suggestion]) -> Figure:
    """The losses over the logarithm of the rate, and each suggestion with its value."""
    chart, axes = figure(8, 4.5)
    rates = np.array([point.lr for point in curve.points])
    losses = np.array([point.loss for point in curve.points])
    smoothed = np.array([point.smoothed for point in curve.points])
    axes.set_xscale("log")
    axes.set_xlim(curve.lowest, curve.highest)
    axes.plot(rates, losses, color=FAINT, linewidth=0.9, alpha=0.8, label="loss of each batch")
    axes.plot(rates, smoothed, color=COLOURS[0], linewidth=2, label=f"smoothed (weight {SMOOTHING:g})")
    for rule, made in suggested.items():
        if made.lr is None or made.loss is None:
            continue
        mark, colour = MARKS[rule]
        axes.axvline(made.lr, color=colour, linewidth=1, linestyle=":")
        label = f"{rule}: {made.lr:.1e}" + (" (advice)" if rule == ADVICE else "")
        axes.plot([made.lr], [made.loss], mark, color=colour, markersize=8, markeredgecolor="white", label=label)
    if curve.end == "not finite":
        axes.axvline(curve.points[-1].lr, color=INK, linewidth=1, linestyle="--", label="the loss is not finite")
    finite = np.isfinite(losses)
    if finite.any():
        axes.set_ylim(*_heights(losses[finite], smoothed[finite]))
    axes.set_xlabel("learning rate (optimizer.lr)")
    axes.set_ylabel("training loss")
    axes.set_title(plain(f"Learning-rate range test: {name}"), loc="left", fontsize=11, fontweight="bold", pad=20)
    axes.text(0, 1.02, curve.reason, transform=axes.transAxes, fontsize=9, color=INK)
    axes.legend(loc="best", fontsize=9, framealpha=0.9)
    return chart


def _heights(losses: np.ndarray, smoothed: np.ndarray) -> tuple[float, float]:
    """Where the axis of losses begins and ends: a loss that explodes in the last steps leaves the picture."""
    least = int(smoothed.argmin())
    top = float(smoothed.max())
    if smoothed[least] > 0:
        top = min(top, DIVERGED * float(smoothed[least]))
    top = max(top, float(smoothed[: least + 1].max()), float(np.quantile(losses[: least + 1], 0.95)))
    bottom = float(losses.min())
    margin = 0.06 * (top - bottom) or 1.0
    return bottom - margin, top + margin
