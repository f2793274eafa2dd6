"""What the runs come to: rows, tables, files, a picture."""

import json

import pytest
from PIL import Image

from ftengine.compare.chart import draw
from ftengine.compare.plan import Comparison, folders
from ftengine.compare.report import Outcome, failure, make_report
from ftengine.compare.tables import advice, cells, count, footnotes, plus_minus, size, write


def comparison(*names, seeds=(0, 1, 2), **changes):
    settings = {"epochs": dict.fromkeys(names, 5), "metric": "accuracy", "mode": "max", **changes}
    return Comparison({}, "/data/birds.yaml", "/data", folders(names), list(seeds), **settings)


def summary(value, *, split="val", metric="accuracy", **changes):
    metrics = {"val": {metric: value if split == "val" else 0.0, "loss": 1.0}}
    if split == "test":
        metrics["test"] = {metric: value}
    return {
        "primary": metric,
        "metrics": metrics,
        "start": {metric: 0.125},
        "seconds": 10.0,
        "parameters": {"total": 2000, "trained": 1000},
        "peak_memory": {"bytes": 3 * 2**20, "of": "process"},
        "moved": 0.25,
        **changes,
    }


@pytest.fixture
def outcomes(tmp_path):
    """Outcomes from ``{strategy: [value or error, …]}``, a value a seed; `lost` by strategy."""

    def make(given, values, lost=(), **options):
        made = []
        for run in given.runs(tmp_path):
            value = values[run.strategy][given.seeds.index(run.seed)]
            if isinstance(value, str):
                made.append(Outcome(run, error=value))
            elif value is not None:
                retained = {"value": 0.5, "lost": lost[run.strategy]} if lost else None
                made.append(Outcome(run, summary(value, **options), retained=retained))
        return made

    return make


VALUES = {"probe": [0.5, 0.6, 0.7], "full": [0.8, 0.85, 0.9]}


def test_rows_are_sorted_by_the_metric_with_their_means(outcomes):
    given = comparison("probe", "full")
    report = make_report(given, outcomes(given, VALUES), complete=True)
    assert [row.name for row in report.rows] == ["full", "probe"]
    row = report.rows[1]
    assert row.values == {0: 0.5, 1: 0.6, 2: 0.7}
    assert row.mean == pytest.approx(0.6)
    assert (row.start, row.seconds, row.trained, row.memory, row.moved, row.lost) == (
        0.125,
        10,
        1000,
        3 * 2**20,
        0.25,
        None,
    )
    assert cells(report)[1][1] == ["probe", "0.6 ± 0.25", "0.125", "5", "10 s", "1,000", "3 MiB", "0.25"]
    assert report.recommendation.strategy == "full"


def test_where_smaller_is_better_the_smallest_is_on_top(outcomes):
    given = comparison("probe", "full", metric="mae", mode="min")
    report = make_report(given, outcomes(given, VALUES, metric="mae"), complete=True)
    assert [row.name for row in report.rows] == ["probe", "full"]
    assert report.recommendation.strategy == "probe"
    assert any(note.startswith("Smaller is better.") for note in footnotes(report))


def test_the_test_split_is_what_counts_where_there_is_one(outcomes):
    given = comparison("probe", "full")
    report = make_report(given, outcomes(given, VALUES, split="test"), complete=True)
    assert report.split == "test"
    assert cells(report)[0][1] == "accuracy (test)"
    assert report.rows[0].values == {0: 0.8, 1: 0.85, 2: 0.9}
    assert not any("choose the epoch" in note for note in footnotes(report))
    on_val = make_report(given, outcomes(given, VALUES), complete=True)
    assert any("choose the epoch" in note for note in footnotes(on_val))


def test_a_strategy_with_a_failed_run_is_shown_and_never_recommended(outcomes):
    given = comparison("probe", "full")
    report = make_report(given, outcomes(given, {**VALUES, "full": [0.8, "Error: nan", 0.9]}), complete=True)
    assert report.recommendation.strategy == "probe"
    columns, rows = cells(report)
    assert columns[-1] == "runs"
    assert [(row[0], row[-1]) for row in rows] == [("full", "2 of 3"), ("probe", "3 of 3")]


def test_where_every_run_failed_there_is_nothing_but_dashes(outcomes):
    given = comparison("probe")
    report = make_report(given, outcomes(given, {"probe": ["Error"] * 3}), complete=True)
    assert cells(report)[1] == [["probe", "-", "-", "5", "-", "-", "-", "-", "0 of 3"]]
    assert advice(report) == ["No strategy finished with every seed: there is none to recommend."]


def test_a_run_without_a_finite_metric_has_failed():
    assert failure(summary(0.5)) == ""
    assert failure(summary(None)) == "its accuracy is not a finite number"
    broken = summary(0.5)
    broken["metrics"]["val"] = {}
    assert failure(broken) == "its accuracy is not a finite number"


def test_a_comparison_that_was_stopped_recommends_nothing(outcomes):
    given = comparison("probe", "full")
    made = outcomes(given, {"probe": [0.5, 0.6, None], "full": [0.8, None, None]})
    report = make_report(given, made, complete=False)
    assert advice(report) == ["Stopped after 3 of 6 runs: no recommendation yet."]


def test_one_seed_has_no_interval_and_says_so(outcomes):
    given = comparison("probe", "full", seeds=[4])
    report = make_report(given, outcomes(given, {"probe": [0.5], "full": [0.8]}), complete=True)
    assert [row[1] for row in cells(report)[1]] == ["0.8", "0.5"]
    assert footnotes(report)[0].startswith("One seed: there is no interval")


def test_what_was_lost_has_a_column_where_it_was_measured(outcomes):
    given = comparison("probe", "full", retain={"task": "classification"})
    report = make_report(given, outcomes(given, VALUES, lost={"probe": 0.0, "full": 0.125}), complete=True)
    columns, rows = cells(report)
    assert columns[-1] == "lost"
    assert [row[-1] for row in rows] == ["0.125 ± 0", "0 ± 0"]
    assert any(note.startswith("Lost: a head was trained") for note in footnotes(report))


def test_a_budget_is_told_with_what_each_run_had_of_it(outcomes):
    given = comparison("probe", "full", budget=1200.0)
    report = make_report(given, outcomes(given, VALUES), complete=True)
    assert "Every run had 3 min 20 s of the budget of 20 min: `epochs` is what fits." in footnotes(report)


def test_the_files_hold_everything(outcomes, tmp_path):
    given = comparison("probe", "acme/x|y", notes=["something was left out"])
    values = {"probe": [0.5, 0.6, 0.7], "acme/x|y": [0.8, "Error: first\n  second", 0.9]}
    report = make_report(given, outcomes(given, values), complete=True)
    write(report, tmp_path)
    draw(report, tmp_path / "comparison.png")
    text = (tmp_path / "comparison.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {10}
    assert table[2].startswith("| acme/x\\|y | 0.85 ± 0.64 | 0.125 | 5 |")
    assert "acme/x|y, seed 1, failed:\n\n```\nError: first\n  second\n```" in text
    assert "- something was left out" in text
    assert "In the config: strategy: probe" in text
    data = json.loads((tmp_path / "comparison.json").read_text())
    assert [row["name"] for row in data["strategies"]] == ["acme/x|y", "probe"]
    assert data["strategies"][1]["mean"] == pytest.approx(0.6)
    assert data["strategies"][1]["half_width"] == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)
    assert [(run["strategy"], run["seed"], run["state"]) for run in data["runs"]][:4] == [
        ("probe", 0, "finished"),
        ("acme/x|y", 0, "finished"),
        ("probe", 1, "finished"),
        ("acme/x|y", 1, "failed"),
    ]
    assert data["runs"][1]["directory"] == "acme-x-y/seed-0"
    assert data["runs"][0]["summary"]["moved"] == 0.25
    assert data["recommendation"]["strategy"] == "probe"


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ({"probe": ["Error"], "full": [0.5]}, {"seeds": [0]}),
        ({"probe": ["Error"], "full": ["Error"]}, {"seeds": [0]}),
        ({"probe": [0.5, 0.5], "full": [0.5, 0.5]}, {"seeds": [0, 1], "retain": {"task": "x"}}),
    ],
    ids=["one failed", "all failed", "all the same, lost less than nothing"],
)
def test_a_picture_is_drawn_of_whatever_was_found(outcomes, tmp_path, values, changes):
    given = comparison(*values, **changes)
    lost = dict.fromkeys(values, -0.1) if "retain" in changes else ()
    draw(make_report(given, outcomes(given, values, lost=lost), complete=True), tmp_path / "comparison.png")
    with Image.open(tmp_path / "comparison.png") as picture:
        assert picture.width > picture.height
        assert len(picture.convert("RGB").getcolors(10**6)) > 20


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (8500, "8,500"), (123_456, "123 k"), (11_181_642, "11.2 M"), (1.2e9, "1.2 G")]
)
def test_counts_in_few_letters(number, text):
    assert count(number) == text


@pytest.mark.parametrize(("number", "text"), [(512 * 2**20, "512 MiB"), (1280 * 2**20, "1.25 GiB")])
def test_sizes_in_few_letters(number, text):
    assert size(number) == text


def test_means_with_their_intervals():
    assert plus_minus([]) == "-"
    assert plus_minus([0.51234]) == "0.5123"
    assert plus_minus([0.8, 0.9, 1.0]) == "0.9 ± 0.25"
