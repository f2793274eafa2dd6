"""What differs from the run is named when it is to be resumed; --force goes on, as far as the state fits."""

import json
import shutil

import pytest
import yaml
from disk_calls import watched

from run_configs import merged

ROWS = {f"train/{name}/{index}.png": index % 2 for name in ("green", "red") for index in range(8)}


@pytest.fixture
def table(image_folder, tmp_path):
    """Writes rows of images with their classes, for training and validation; returns the `data` section."""
    image_folder(tmp_path / "train", classes=("red", "green"), count=10)

    def write(train, val=None):
        for split, rows in (("train", train), ("val", val)):
            if rows is not None:
                lines = [f"{image},{label}" for image, label in rows.items()]
                (tmp_path / f"{split}.csv").write_text("\n".join(["image,label", *lines]))
        return {
            "data": {
                "format": "csv",
                "root": str(tmp_path),
                "train": "train.csv",
                "val": "val.csv",
                "label": "label",
                "limit": None,
            },
            "train": {"batch_size": 4},
        }

    return write


def named(rows, **names):
    return {image: names.get(f"n{label}", f"c{label}") for image, label in rows.items()}


@pytest.fixture
def stopped(runs, table):
    val = {f"train/{name}/{index}.png": index - 8 for name in ("green", "red") for index in (8, 9)}
    config = table(named(ROWS), named(val))
    return merged({"rows": named(ROWS), "val": named(val)}, {}), runs(config, "--stop-after", "3", exit_code=143)


def refused(cli, run, *texts):
    result = cli("run", "--resume", run.directory)
    assert result.exit_code == 1
    assert "the data are not those of the run" in result.stderr
    assert "go on with these by --force" in result.stderr
    for text in texts:
        assert text in result.stderr


def test_files_are_named_and_counted(cli, table, stopped):
    rows, run = stopped
    changed = {image: label for image, label in rows["rows"].items() if not image.endswith(("0.png", "1.png"))}
    changed["train/red/8.png"] = "c0"
    changed["train/red/3.png"] = "c0"
    table(changed)
    refused(
        cli,
        run,
        "data.train of 'data': 1 added: train/red/8.png; 4 removed: train/green/0.png, train/green/1.png, "
        "train/red/0.png, train/red/1.png; 1 with another target: train/red/3.png",
    )
    result = cli("run", "--resume", run.directory, "--force")
    assert result.exit_code == 0, result.output
    assert "going on with other data than the run had" in result.stdout
    assert cli("run", "--resume", run.directory).exit_code == 0, "the data of the forced run are the run's now"


def test_validation_data_are_compared_too(cli, table, stopped):
    rows, run = stopped
    table(rows["rows"], {**rows["val"], "train/red/8.png": "c1"})
    refused(cli, run, "data.val of 'data': 1 with another target: train/red/8.png")


def test_another_order_is_another_run(cli, table, stopped):
    rows, run = stopped
    table(dict(reversed(rows["rows"].items())))
    refused(cli, run, "data.train of 'data': the same samples come in another order")


def test_without_the_list_the_number_is_said(cli, table, stopped):
    rows, run = stopped
    shutil.rmtree(run.directory / "samples")
    table({**rows["rows"], "train/red/8.png": "c0"})
    refused(cli, run, "data.train of 'data': there are 17 samples now; the run directory has no list of those before")


def test_a_list_that_was_left_behind_is_written_again(cli, table, stopped):
    rows, run = stopped
    before = {file.name: file.read_text() for file in (run.directory / "samples").iterdir()}
    shutil.rmtree(run.directory / "samples")
    assert cli("run", "--resume", run.directory).exit_code == 0
    assert {file.name: file.read_text() for file in (run.directory / "samples").iterdir()} == before
    table({**rows["rows"], "train/red/8.png": "c0"})
    refused(cli, run, "data.train of 'data': 1 added: train/red/8.png")


def test_labels_that_were_added_removed_or_renumbered(cli, table, stopped):
    rows, run = stopped
    table(named(ROWS, n0="z0"), named({image: int(label[1:]) for image, label in rows["val"].items()}, n0="z0"))
    refused(
        cli,
        run,
        "task 'classification', learned from the training split: names: added: z0",
        "learned from the training split: names: removed: c0",
        "learned from the training split: names: renumbered: c1 (1 -> 0)",
    )


def test_a_model_that_does_not_fit_is_refused_with_force_too(cli, table, stopped):
    rows, run = stopped
    table({**rows["rows"], "train/red/8.png": "c2", "train/red/9.png": "c2"})
    before = run.checkpoint()
    result = cli("run", "--resume", run.directory, "--force")
    assert result.exit_code == 1
    assert "does not fit the model" in result.stderr
    assert "of another shape: " in result.stderr
    assert run.checkpoint() == before


def test_a_changed_config_is_refused_key_by_key_and_forced(cli, config_file, runs):
    run = runs({}, "--stop-after", "2", exit_code=143)
    changes = {"optimizer": {"lr": 0.5}, "train": {"ema": 0.9}, "freeze": {"name": "all"}}
    changed = config_file(changes)
    result = cli("run", "--resume", run.directory, "--config", changed)
    assert result.exit_code == 2
    assert "optimizer.lr: the run has 0.01, the config 0.5" in result.stderr
    assert "train.ema.decay: the run has None, the config 0.9" in result.stderr
    assert "freeze.name: the run has 'none', the config 'all'" in result.stderr
    assert "with --force the config counts" in result.stderr
    before = run.resolved
    result = cli("run", "--resume", run.directory, "--config", changed, "--force")
    assert result.exit_code == 0, result.output
    assert "warning: optimizer.lr: the run has 0.01, the config 0.5" in result.stderr
    assert run.resolved["optimizer"]["lr"] == 0.5
    assert run.resolved["train"]["ema"]["decay"] == 0.9
    kept = yaml.safe_load((run.directory / "resolved-until-step-00000002.yaml").read_text())
    assert kept == before
    assert run.lines("train")[2]["lr"] > 0.05
    assert run.checkpoint().name == "step-00000006"


def test_other_measures_make_another_best(cli, runs):
    run = runs({"train": {"monitor": "loss"}}, "--stop-after", "4", exit_code=143)
    result = cli("run", "--resume", run.directory, "--set", "train.monitor=accuracy", "--force")
    assert result.exit_code == 0, result.output
    assert run.summary["primary"] == "accuracy"
    assert run.summary["best_step"] == 6, "the only evaluation by this measure"


def state_of(run, pointer="last"):
    return json.loads((run.checkpoint(pointer) / "state.json").read_text())


@pytest.fixture(scope="module")
def finished_mixture(runs):
    """A run that does harm: its best is a mixture with its start."""
    train = {"epochs": 3, "monitor": "loss", "wise_ft": {"grid": [0.5, 1.0]}}
    run = runs({"optimizer": {"name": "sgd", "lr": 0.5}, "schedule": "constant", "train": train})
    assert run.checkpoint("best").name == "step-00000009-mixed"
    return run


def test_a_mixture_stays_the_best_of_a_run_that_goes_on_after_its_end(finished_mixture, cli, tmp_path):
    run = type(finished_mixture)(shutil.copytree(finished_mixture.directory, tmp_path / "run"), None)
    value = state_of(run, "best")["judge"]["best"]["value"]
    longer = ("--force", "--set", "train.epochs=5", "--set", "optimizer.lr=0.9")
    result = cli("run", "--resume", run.directory, *longer, "--stop-after", 13)
    assert result.exit_code == 143, result.output
    assert min(line["loss"] for line in run.lines("val") if line["step"] > 9) > value, "the case is meant to get worse"
    best = state_of(run)["judge"]["best"]
    assert (best["value"], best["step"], best["mixed"]) == (value, 9, 0.5)
    assert cli("run", "--resume", run.directory, "--stop-after", 14).exit_code == 143
    assert run.checkpoint("best").name == "step-00000009-mixed"
    assert run.checkpoint("best").is_dir()


def test_a_mixture_by_another_measure_is_not_the_best(finished_mixture, cli, tmp_path):
    run = type(finished_mixture)(shutil.copytree(finished_mixture.directory, tmp_path / "run"), None)
    result = cli("run", "--resume", run.directory, "--force", "--set", "train.monitor=accuracy")
    assert result.exit_code == 0, result.output
    assert json.loads((run.directory / "wise_ft.json").read_text())["primary"] == "accuracy"
    best = state_of(run, "best")
    assert best["judge"]["best"]["value"] == best["judge"]["best"]["values"]["accuracy"]


def test_fewer_parts_are_forced(cli, runs):
    run = runs({"train": {"accumulate": 4}}, "--stop-after", 2, exit_code=143)
    assert (state_of(run)["parts"], state_of(run)["accumulate"]) == (4, 4), "the config's, not memory's"
    result = cli("run", "--resume", run.directory, "--force", "--set", "train.accumulate=1")
    assert result.exit_code == 0, result.output
    whole = runs({}, "--stop-after", 2, exit_code=143)
    assert cli("run", "--resume", whole.directory).exit_code == 0
    counted = [run.tensors()["backbone.stages.c1.1.num_batches_tracked"].item() for run in (run, whole)]
    assert counted == [4 * 2 + 4, 6]


@pytest.mark.parametrize(("before", "after"), [("ema", "swa"), ("swa", "ema")])
def test_another_kind_of_average_begins_anew(cli, runs, before, after):
    kinds = {"ema": {"ema": 0.9}, "swa": {"swa": {"start": 0.0}}}
    run = runs({"train": {"epochs": 3, **kinds[before]}}, "--stop-after", 4, exit_code=143)
    state = state_of(run)
    assert (state["average"], state["averaged"]) == (before, 4 if before == "ema" else 1)
    changes = ("--set", f"train.{before}=null", "--set", f"train.{after}=true")
    result = cli("run", "--resume", run.directory, "--force", *changes)
    assert result.exit_code == 0, result.output
    state = state_of(run)
    assert (state["average"], state["averaged"]) == (after, 5 if after == "ema" else 1)


def test_the_config_before_is_synced_before_it_is_replaced(cli, runs):
    run = runs({}, "--stop-after", 2, exit_code=143)
    paths, synced, visible = {}, set(), {}

    def after(call, arguments, options, result):
        if call == "open" and "dir_fd" not in options:
            paths[result] = str(arguments[0])
        elif call == "fsync":
            synced.add(paths[arguments[0]])
        elif call in ("rename", "replace"):
            visible[str(arguments[1])] = str(arguments[0]) in synced

    with watched(after=after):
        result = cli("run", "--resume", run.directory, "--force", "--set", "optimizer.lr=0.5")
    assert result.exit_code == 0, result.output
    for name in ("resolved-until-step-00000002.yaml", "resolved.yaml"):
        assert visible[str(run.directory / name)], name


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("train.epochs=1", "4 steps are done, and the config wants 3"),
        ("backbone.width=4", "does not fit the model"),
    ],
)
def test_what_cannot_be_forced(cli, runs, assignment, text):
    run = runs({}, "--stop-after", "4", exit_code=143)
    before = run.resolved
    result = cli("run", "--resume", run.directory, "--set", assignment, "--force")
    assert result.exit_code == 1
    assert text in result.stderr
    assert run.resolved == before
    assert cli("run", "--resume", run.directory).exit_code == 0


def test_another_optimizer_does_not_take_the_state(cli, runs, config_file):
    run = runs({}, "--stop-after", "4", exit_code=143)
    other = config_file({"optimizer": {"name": "sgd"}})
    result = cli("run", "--resume", run.directory, "--config", other, "--force")
    assert result.exit_code == 1
    assert "the optimizer's state is that of AdamW, the config wants SGD" in result.stderr


def test_force_goes_with_resume(cli, config_file):
    result = cli("run", "--config", config_file(), "--force")
    assert result.exit_code == 2
    assert "--force goes with --resume" in result.stderr


def test_a_run_that_was_killed_before_its_first_checkpoint(cli, runs, config_file):
    run = runs({}, "--stop-after", "2", exit_code=143)
    shutil.rmtree(run.directory / "checkpoints")
    result = cli("run", "--resume", run.directory)
    assert result.exit_code == 1
    assert f"{run.directory} has no checkpoint to continue from" in result.stderr
    assert "--continue" in result.stderr
    result = cli("run", "--config", config_file(), "--output", run.directory, "--continue")
    assert result.exit_code == 0, result.output
    assert [line["step"] for line in run.lines("train")] == list(range(1, 7))
    assert json.loads((run.directory / "summary.json").read_text())["epochs"] == 2
