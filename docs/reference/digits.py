"""What the strategies did on digits: docs/examples/compare-digits.json, the comparison.json of a comparison."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from ftengine.compare.stats import duration
from ftengine.compare.tables import count
from reference.markdown import table

FILE = Path(__file__).resolve().parents[1] / "examples" / "compare-digits.json"


def results(_: str) -> str:
    """The comparison's table, with links to the sections, its notes and its recommendation."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    head = ("strategy", f"{found['metric']} ({found['split']})", "time a run", "trained", "moved", "lost (r2)")
    rows = [
        (
            f"[`{row['name']}`](#{row['name']})",
            _interval(row["mean"], row["half_width"]),
            duration(row["seconds"]),
            count(row["trained"]),
            f"{row['moved']:.2g}",
            f"{_lost(row):.2g}",
        )
        for row in found["strategies"]
    ]
    advice = found["recommendation"]
    notes = (
        f"Means over {len(found['seeds'])} seeds; ± is half of the 95 % interval. `trained`: the most parameters that "
        "trained at any time. `moved`: how far the backbone is from its start, relative to its size. `lost`: what the "
        "retain task's r2 has dropped by. Times are from two cores with other work on them: "
        "take them as rough."
    )
    said = f"What the command says in the end: *Recommended: {advice['strategy']}. {advice['reason']}*"
    return f"{table(head, rows)}\n\n{notes}\n\n{said}"


def result(name: str) -> str:
    """One strategy's numbers as a sentence."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    row = next(row for row in found["strategies"] if row["name"] == name)
    place = found["strategies"].index(row) + 1
    accuracy = _interval(row["mean"], row["half_width"])
    return (
        f"{found['metric']} {accuracy}, number {place} of {len(found['strategies'])}; moved {row['moved']:.2g}, lost "
        f"{_lost(row):.2g} of r2; {count(row['trained'])} parameters."
    )


def _interval(mean: float, half: float) -> str:
    return f"{mean:.3f} ± {half:.3f}"


def _lost(row: dict[str, Any]) -> float:
    return statistics.fmean(row["lost"].values())
