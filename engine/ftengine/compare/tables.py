"""A comparison's report as a person reads it, and as programs do. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ftengine.compare.report import Report
from ftengine.compare.stats import duration, interval, number, spread
from ftengine.files import write_text


def cells(report: Report) -> tuple[list[str], list[list[str]]]:
    """The table's columns and rows, as text."""
    comparison = report.comparison
    columns = ["strategy", f"{comparison.metric} ({report.split})", "at the start (val)", "epochs", "time"]
    columns += ["trained", "peak memory", "moved"]
    if comparison.retain is not None:
        columns.append("lost")
    failures = any(row.finished < row.planned for row in report.rows)
    if failures:
        columns.append("runs")
    rows = []
    for row in report.rows:
        line = [
            row.name,
            plus_minus(list(row.values.values())),
            _or_dash(row.start, number),
            str(row.epochs),
            _or_dash(row.seconds, duration),
            _or_dash(row.trained, count),
            _or_dash(row.memory, size),
            _or_dash(row.moved, "{:.3g}".format),
        ]
        if comparison.retain is not None:
            line.append(plus_minus(list(row.lost.values())) if row.lost else "-")
        if failures:
            line.append(f"{row.finished} of {row.planned}")
        rows.append(line)
    return columns, rows


def plus_minus(values: Sequence[float]) -> str:
    """``0.953 ± 0.012``, the mean alone for a single value, ``-`` for none."""
    return spread(interval(values)) if values else "-"


def _or_dash(value: Any, text: Callable[[Any], str]) -> str:
    return "-" if value is None else text(value)


def count(of: int) -> str:
    """``8,500``, ``123 k``, ``11.2 M``."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if of >= factor:
            return f"{of / (1e3 if unit == 'k' else factor):.3g} {unit}"
    return f"{of:,}"


def size(number: int) -> str:
    """Bytes as ``512 MiB`` or ``1.25 GiB``."""
    mebibytes = number / 2**20
    return f"{mebibytes:.0f} MiB" if mebibytes < 1000 else f"{mebibytes / 1024:.2f} GiB"


def footnotes(report: Report) -> list[str]:
    """What the columns are."""
    comparison, seeds = report.comparison, len(report.comparison.seeds)
    if seeds == 1:
        notes = ["One seed: there is no interval, and a difference may be chance."]
    else:
        notes = [f"±: half of the 95 % Student-t interval of the mean over {seeds} seeds (fewer where runs failed)."]
    if report.split == "val":
        notes.append("The val split was also used to choose the epoch, so the values are on the high side.")
    else:
        notes.append("The epochs, and the recommendation, were chosen on val: test has chosen nothing.")
    lower = "Smaller is better. " if comparison.mode == "min" else ""
    notes.append(f"{lower}At the start: {comparison.metric} on val before the first step, with new heads.")
    if comparison.budget is not None:
        share = comparison.budget / len(comparison.seeds) / len(comparison.strategies)
        notes.append(
            f"Every run had {duration(share)} of the budget of {duration(comparison.budget)}: `epochs` is what fits."
        )
    of = "of tensors on the GPU" if report.of == "cuda" else "of the process, without libraries and data"
    notes.append(f"Trained: the most parameters that trained at any time. Peak memory: {of}.")
    notes.append("Moved: ‖w - w0‖ / ‖w0‖ of the backbone's parameters w from where they started, w0.")
    if comparison.retain is not None:
        notes.append(
            "Lost: a head was trained for the retain task on the frozen starting backbone; lost is its value on that "
            "task's val split minus its value on the fine-tuned backbone (negated where smaller is better)."
        )
    return notes


def advice(report: Report) -> list[str]:
    """The recommendation as lines of text; what keeps from one, else."""
    if report.recommendation is None:
        if not report.complete:
            done = sum(row.finished for row in report.rows)
            return [f"Stopped after {done} of {sum(row.planned for row in report.rows)} runs: no recommendation yet."]
        return ["No strategy finished with every seed: there is none to recommend."]
    name = report.recommendation.strategy
    return [f"Recommended: {name}", report.recommendation.reason, f"In the config: strategy: {name}"]


def show(report: Report, console: Console) -> None:
    """The table, its notes and the recommendation, for a person."""
    columns, rows = cells(report)
    table = Table()
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in footnotes(report):
        console.print(line)
    console.print()
    for line in advice(report):
        console.print(line, soft_wrap=True)


# --- as files ----------------------------------------------------------------------------------------------------


def write(report: Report, directory: Path) -> None:
    """``comparison.md`` and ``comparison.json``."""
    columns, rows = cells(report)
    comparison = report.comparison
    lines = [f"# Strategies compared on {Path(comparison.source).name}", ""]
    lines += [_markdown(columns), _markdown(["---", *["---:"] * (len(columns) - 1)])]
    lines += [_markdown(row) for row in rows]
    lines += ["", *(f"- {note}" for note in [*footnotes(report), *comparison.notes])]
    failed = [outcome for outcome in report.outcomes if outcome.error]
    for outcome in failed:
        lines += ["", f"{outcome.run.strategy}, seed {outcome.run.seed}, failed:", "", "```", outcome.error, "```"]
    lines += ["", *advice(report), "", "![Every strategy's runs](comparison.png)", ""]
    write_text(directory / "comparison.md", "\n".join(lines))
    write_text(directory / "comparison.json", json.dumps(as_data(report, directory), indent=1, default=str) + "\n")


def _markdown(row: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def as_data(report: Report, directory: Path) -> dict[str, Any]:
    """Everything, as JSON data: the rows with their intervals, and every run."""
    rows = []
    for row in report.rows:
        found = interval(list(row.values.values())) if row.values else None
        rows.append({**asdict(row), "mean": found and found.mean, "half_width": found and found.half})
    runs = [
        {
            "strategy": outcome.run.strategy,
            "seed": outcome.run.seed,
            "directory": str(outcome.run.directory.relative_to(directory)),
            "log": str(outcome.run.log.relative_to(directory)),
            "state": "failed" if outcome.error else "finished",
            "error": outcome.error or None,
            "summary": outcome.summary,
            "retain": outcome.retained,
        }
        for outcome in report.outcomes
    ]
    comparison = report.comparison
    return {
        "metric": comparison.metric,
        "mode": comparison.mode,
        "split": report.split,
        "seeds": comparison.seeds,
        "budget": comparison.budget,
        "complete": report.complete,
        "recommendation": None if report.recommendation is None else asdict(report.recommendation),
        "strategies": rows,
        "runs": runs,
        "notes": [*footnotes(report), *comparison.notes],
    }
