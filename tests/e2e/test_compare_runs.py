"""Strategies compared for real: stopped, continued, measured, and what is refused before anything trains."""

import json
import os
import re
import signal

import pytest
import yaml

from ftengine.children import StoppedBySignal, run_process
from ftengine.compare import execution as compare
from ftengine.compare.budget import seconds_of
from run_configs import BASE, merged

METRIC = ["acme/error_rate"]
"""Of which less is better; the built-in ones import a library that takes longer than a run here."""

SEED = 3

RETAIN = {key: BASE[key] for key in ("task", "image", "train")}
RETAIN |= {"data": {"format": "digits", "limit": 96, "split_seed": 1}, "metrics": METRIC, "optimizer": {"lr": 0.1}}


class Comparison:
    """A comparison's directory, and what each command that worked on it gave."""

    def __init__(self, directory, *results):
        self.directory = directory
        self.results = results
        self.data = json.loads((directory / "comparison.json").read_text())

    def summary(self, strategy, seed):
        return json.loads((self.directory / strategy / f"seed-{seed}" / "summary.json").read_text())


@pytest.fixture(scope="module")
def environment(third_party):
    """The processes of runs find the packages of tests/thirdparty, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(third_party))
        yield patch


@pytest.fixture(scope="module")
def files(tmp_path_factory, runs):
    """Configs of what is compared and of what is to be retained, with weights to start from."""
    folder = tmp_path_factory.mktemp("compare")
    changes = {
        "metrics": METRIC,
        "train": {"seed": SEED},
        "freeze": {"name": "stages", "through": "c1"},
        "data": {"test_fraction": 0.25},
        "backbone": {"weights": f"run:{runs({'metrics': METRIC, 'train': {'epochs': 4}}).directory}"},
    }
    (folder / "base.yaml").write_text(yaml.safe_dump(merged(BASE, changes)))
    (folder / "retain.yaml").write_text(yaml.safe_dump(RETAIN))
    return folder


def stopped_and_continued(cli, files, directory, run):
    """Two strategies and a retain task: stopped by a signal in the second run, then continued. `run` does each."""
    started = []

    def stopping(arguments, log, folder, signals, look=lambda: None):
        started.append(str(log.relative_to(directory).with_suffix("")))
        if len(started) == 3:
            os.kill(os.getpid(), signal.SIGTERM)  # as a user does from another terminal
        return run(arguments, log, folder, signals, look)

    options = ["--strategies", "probe,full", "--seeds", 1, "--retain", files / "retain.yaml", "--output", directory]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "run_process", stopping)
        first = cli("compare", "--config", files / "base.yaml", *options)
        before = (directory / "probe" / f"seed-{SEED}" / "summary.json").stat().st_mtime_ns
        second = cli("compare", "--resume", directory)
    assert (directory / "probe" / f"seed-{SEED}" / "summary.json").stat().st_mtime_ns == before
    assert started == ["retain/run", "probe/seed-3", "full/seed-3", "full/seed-3"]
    return Comparison(directory, first, second)


@pytest.fixture(scope="module")
def comparison(cli, files, environment):
    """A comparison whose runs are done in this process: one of their own takes longer to start than to run."""

    def run(arguments, log, folder, signals, look):
        if signals.received is not None:
            raise StoppedBySignal(128 + signals.received)
        result = cli(*arguments[1:])
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(result.output)
        return result.exit_code

    return stopped_and_continued(cli, files, files / "out", run)


@pytest.mark.slow
def test_runs_in_processes_of_their_own(cli, files, environment, comparison):
    found = stopped_and_continued(cli, files, files / "out-of-process", run_process)
    first, second = found.results
    assert (first.exit_code, second.exit_code) == (143, 0), first.output + second.output
    for row in found.data["strategies"]:
        assert row["memory"] > 0
        same = next(other for other in comparison.data["strategies"] if other["name"] == row["name"])
        assert (row["values"], row["moved"], row["lost"]) == (same["values"], same["moved"], same["lost"])


def test_it_stops_with_a_report_and_says_how_to_go_on(comparison):
    first, _ = comparison.results
    assert first.exit_code == 143, first.output
    assert "Stopped after 1 of 2 runs" in first.stdout
    assert first.stdout.endswith(f"continue with: ftengine compare --resume {comparison.directory}\n")


def test_it_goes_on_and_ends_with_a_recommendation(comparison):
    _, second = comparison.results
    assert second.exit_code == 0, second.output
    assert comparison.data["complete"]
    means = [row["mean"] for row in comparison.data["strategies"]]
    assert means == sorted(means)
    name = comparison.data["recommendation"]["strategy"]
    assert f"In the config: strategy: {name}" in second.stdout
    for file in ("comparison.md", "comparison.png"):
        assert (comparison.directory / file).stat().st_size > 500


def test_runs_are_those_of_the_strategy_and_the_seed(comparison):
    for strategy, freeze in (("probe", "all"), ("full", "none")):
        directory = comparison.directory / strategy / f"seed-{SEED}"
        resolved = yaml.safe_load((directory / "resolved.yaml").read_text())
        assert resolved["freeze"]["name"] == freeze
        assert resolved["train"]["seed"] == SEED
        assert not (directory / "pictures").exists()
    notes = comparison.data["notes"]
    assert "the strategies decide these, and the config's are not used: freeze" in notes


def test_the_report_is_that_of_the_runs(comparison):
    assert (comparison.data["metric"], comparison.data["split"]) == ("error_rate", "test")
    rows = {row["name"]: row for row in comparison.data["strategies"]}
    for name, row in rows.items():
        summary = comparison.summary(name, SEED)
        assert row["values"] == {str(SEED): summary["metrics"]["test"]["error_rate"]}
        assert row["start"] == summary["start"]["error_rate"]
        assert row["seconds"] == summary["seconds"]
        assert row["trained"] == summary["parameters"]["trained"]
        assert row["memory"] == summary["peak_memory"]["bytes"]
        assert row["moved"] == summary["moved"]
    assert rows["probe"]["trained"] < rows["full"]["trained"]
    assert rows["probe"]["moved"] == 0 < rows["full"]["moved"]


def test_a_backbone_that_did_not_move_has_lost_nothing(comparison):
    rows = {row["name"]: row for row in comparison.data["strategies"]}
    assert rows["probe"]["lost"] == {str(SEED): 0.0}
    assert rows["full"]["lost"][str(SEED)] != 0
    for run in comparison.data["runs"]:
        assert run["retain"]["lost"] == pytest.approx(run["retain"]["value"] - run["retain"]["reference"])


def test_a_finished_comparison_only_reports_again(comparison, cli, environment):
    def never(*_):
        raise AssertionError("a run was started")

    before = comparison.data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "run_process", never)
        result = cli("compare", "--resume", comparison.directory)
    assert result.exit_code == 0, result.output
    assert json.loads((comparison.directory / "comparison.json").read_text()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strategies", "probe"], "--strategies probe differs from the comparison in"),
        (["--seeds", 3], "--seeds 3 differs"),
        (["--budget", "1h"], "--budget 3600.0 differs"),
        (["--config", "other.yaml"], "--config other.yaml differs"),
        (["--retain", "other.yaml"], "--retain other.yaml differs"),
        (["--set", "train.epochs=3"], "leave --set and --task out"),
        (["--output", "x"], "--output and --resume exclude each other"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_what_differs_from_the_comparison_is_refused(comparison, cli, files, monkeypatch, options, message):
    monkeypatch.chdir(files)
    (files / "other.yaml").write_text(yaml.safe_dump(merged(BASE, {"train": {"epochs": 7}})))
    result = cli("compare", "--resume", comparison.directory, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_what_is_the_same_is_taken(comparison, cli, files):
    options = ["--strategies", "full, probe", "--seeds", 1, "--retain", files / "retain.yaml"]
    result = cli("compare", "--resume", comparison.directory, "--config", files / "base.yaml", *options)
    assert result.exit_code == 0, result.output


# --- what is refused before anything trains -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 2, "--strategies is needed: names with commas between them, or all: "),
        (["--strategies", "probee"], 2, "did you mean 'probe'?"),
        (["--strategies", "probe", "--seeds", 0], 2, "'--seeds': 0 is not in the range"),
        (["--strategies", "probe", "--budget", "20"], 2, "expected a time such as 90s, 20min or 1h30min"),
        (["--strategies", "probe", "--set", "train.epochs=none"], 2, "train.epochs"),
        (["--strategies", "probe", "--retain", "none.yaml"], 2, "none.yaml"),
        (["--strategies", "probe", "--task", "regression"], 2, "--task says 'regression'"),
        (["--strategies", "probe,full", "--set", "train.batch_size=64"], 1, "fewer than train.batch_size"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(cli, files, environment, tmp_path, options, code, message):
    result = cli("compare", "--config", files / "base.yaml", "--output", tmp_path / "new", *options)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "new").exists()


def test_without_a_config(cli):
    assert "--config FILE is needed (or --resume DIR)" in cli("compare").stderr


def test_a_folder_with_something_in_it_is_refused(cli, files, environment, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    result = cli("compare", "--config", files / "base.yaml", "--strategies", "probe", "--output", tmp_path)
    assert result.exit_code == 1
    assert f"`ftengine compare --resume {tmp_path}`" in result.stderr


def test_a_folder_that_holds_no_comparison_cannot_be_continued(cli, tmp_path):
    result = cli("compare", "--resume", tmp_path)
    assert result.exit_code == 1
    assert "is not a comparison's directory: it has no compare.json" in result.stderr


@pytest.mark.slow
def test_a_budget_of_time_becomes_epochs_of_runs_with_several_seeds(cli, files, environment, tmp_path):
    options = ["--strategies", "probe,full", "--seeds", 2, "--set", "train.epochs=1", "--output", tmp_path / "out"]
    refused = cli("compare", "--config", files / "base.yaml", *options, "--budget", "1s")
    assert refused.exit_code == 2, refused.output
    least = seconds_of(re.search(r"use --budget (\w+) or more", refused.stderr)[1])  # of this machine, as busy as it is
    result = cli("compare", "--config", files / "base.yaml", *options, "--budget", f"{2 * least:g}s")
    assert result.exit_code == 0, result.output
    assert "epochs fit into" in result.stdout
    found = Comparison(tmp_path / "out", result)
    assert found.data["budget"] == 2 * least
    for row in found.data["strategies"]:
        assert row["epochs"] > 1
        config = yaml.safe_load((tmp_path / "out" / row["name"] / "config.yaml").read_text())
        assert config["train"]["epochs"] == row["epochs"]
        summaries = {seed: found.summary(row["name"], seed) for seed in (SEED, SEED + 1)}
        assert {summary["epochs"] for summary in summaries.values()} == {row["epochs"]}
        values = {str(seed): summary["metrics"]["test"]["error_rate"] for seed, summary in summaries.items()}
        assert row["values"] == values
        first, second = values.values()
        assert row["mean"] == pytest.approx((first + second) / 2)
        # Of two values: t(0.975, 1) = 12.706205, and the standard error is half of their difference.
        assert row["half_width"] == pytest.approx(12.706205 * abs(first - second) / 2, rel=1e-6)


@pytest.mark.slow
def test_a_budget_for_not_one_epoch(cli, files, environment, tmp_path):
    options = ["--strategies", "probe", "--seeds", 2, "--budget", "1s"]
    result = cli("compare", "--config", files / "base.yaml", *options, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "probe: not even one epoch fits; 1 would take" in result.stderr
    assert "use --budget" in result.stderr
    assert not (tmp_path / "out").exists()
