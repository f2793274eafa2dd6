"""Checkpoints that are damaged, or made to do harm: noticed, told, and the newest whole one takes their place."""

import json
import shutil

import pytest
import torch
from saves import entries, mix, save

from ftengine.checkpoint import Store
from ftengine.errors import CheckpointError
from ftengine.recovery import last_checkpoint
from ftengine.run_state import check_state

FILES = ["model.safetensors", "training.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


def flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file):
    file.write_bytes(file.read_bytes()[:-2])


def emptied(file):
    file.write_bytes(b"")


def gone(file):
    file.unlink()


DAMAGE = [flipped, cut, emptied, gone]


def name_of(damage):
    return damage.__name__


# --- the store ---------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path, keep=3)
    save(store, 1, best=True)
    for step in (2, 3, 4):
        save(store, step)
    assert entries(tmp_path) == ["best.json", "last.json", *(f"step-0000000{step}" for step in (1, 2, 3, 4))]
    return store


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE, ids=name_of)
def test_the_newest_whole_checkpoint_takes_the_place_of_a_damaged_one(store, name, damage):
    damage(store.folder / "step-00000004" / name)
    told = []
    found = last_checkpoint(store, store.run, told.append)
    assert (found.path.name, found.state) == ("step-00000003", {"step": 3})
    assert found.optimizer["w/m"].tolist() == [-3] * 3
    (text,) = told
    assert "step-00000004" in text
    assert text.endswith(f"the newest whole checkpoint takes its place: {store.folder}/step-00000003")
    damage(store.folder / "step-00000003" / name)
    found = last_checkpoint(store, store.run, told.append)
    assert found.path.name == "step-00000002"
    with pytest.raises(CheckpointError, match="the nearest whole one is step-00000002: `ftengine run --resume"):
        store.load(store.folder / "step-00000004", for_training=False)


POINTERS = ["{}", "[]", *(json.dumps({"checkpoint": name, "step": 8}) for name in ("step-00000008", "../x", ["x"]))]


@pytest.mark.parametrize("damage", [*DAMAGE, *POINTERS], ids=lambda damage: getattr(damage, "__name__", str(damage)))
def test_a_pointer_that_is_damaged_or_leads_nowhere(store, damage):
    file = store.folder / "last.json"
    file.write_text(damage) if isinstance(damage, str) else damage(file)
    told = []
    found = last_checkpoint(store, store.run, told.append)
    assert found.path.name == "step-00000004"
    assert "last.json" in told[0] or "step-00000008 is missing" in told[0]


def test_nothing_whole_is_left(store):
    for path in store.paths():
        flipped(path / "model.safetensors")
    with pytest.raises(CheckpointError, match="has no whole checkpoint to continue from:") as error:
        last_checkpoint(store, store.run, print)
    assert str(error.value).count("its SHA-256 differs") == 4
    with pytest.raises(CheckpointError, match="no other checkpoint of the run is whole"):
        store.load(store.folder / "step-00000004", for_training=True)


def test_a_mixture_is_not_trained_on(store):
    mix(store, 4)
    flipped(store.folder / "step-00000004" / "state.json")
    assert last_checkpoint(store, store.run, print).path.name == "step-00000003"


# --- runs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(runs):
    """A run with all its checkpoints and the average of its weights."""
    return runs({"train": {"epochs": 3, "ema": 0.5}, "checkpoint": {"keep": 9, "every_steps": 2}})


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it."""
    return type(finished)(shutil.copytree(finished.directory, tmp_path / "run"), None)


@pytest.fixture(scope="module")
def worse_at_the_end(runs):
    """Another one, whose best checkpoint is not the last."""
    run = runs({"optimizer": {"lr": 0.3}, "train": {"epochs": 4}, "checkpoint": {"keep": 9, "every_steps": 2}})
    assert run.checkpoint("best") != run.checkpoint()
    return run


def plain(text):
    return " ".join(text.split())


@pytest.mark.parametrize("name", ["training.safetensors", "manifest.json"])
def test_a_resumed_run_goes_on_from_the_newest_whole_checkpoint(run, finished, cli, name):
    """The log goes back with it, and it ends as if nothing had happened."""
    assert run.checkpoint().name == "step-00000009"
    flipped(run.checkpoint() / name)
    flipped(run.directory / "checkpoints" / "step-00000008" / name)
    result = cli("run", "--resume", run.directory)
    assert result.exit_code == 0
    said = plain(result.stdout)
    assert "step-00000009" in said
    assert f"the newest whole checkpoint takes its place: {run.directory}/checkpoints/step-00000006" in said
    assert "continuing after step 6 of 9" in said
    for pointer in ("last", "best"):
        assert run.checkpoint(pointer).name == finished.checkpoint(pointer).name
        assert run.bytes(pointer) == finished.bytes(pointer)
    assert run.summary["metrics"] == finished.summary["metrics"]
    logged = [[{**line, "images_per_second": None} for line in one.lines()] for one in (run, finished)]
    assert logged[0] == logged[1]


def test_a_damaged_best_is_named_with_the_nearest_that_is_whole(worse_at_the_end, cli, tmp_path):
    """It is not for `evaluate` to choose another: the run does, when it is resumed."""
    run = type(worse_at_the_end)(shutil.copytree(worse_at_the_end.directory, tmp_path / "run"), None)
    best = run.checkpoint("best")
    flipped(best / "model.safetensors")
    for arguments in (
        ["evaluate", run.directory],
        ["predict", run.directory, tmp_path],
        ["export", run.directory, tmp_path / "model.safetensors"],
    ):
        result = cli(*arguments)
        assert result.exit_code == 1
        assert f"{best} is damaged: model.safetensors is not what was written (its SHA-256 differs)" in result.stderr
        assert "the nearest whole one is step-000000" in result.stderr
        assert f"`ftengine run --resume {run.directory}` continues from the newest whole one" in result.stderr
    result = cli("run", "--resume", run.directory)
    assert result.exit_code == 0
    assert "the best checkpoint is lost: " in plain(result.stdout)
    chosen = run.checkpoint("best")
    assert f"the best of those that are whole is {chosen.name}" in plain(result.stdout)
    assert chosen != best
    assert run.summary["best_step"] == int(chosen.name.split("-")[1])
    evaluated = {line["step"]: line for line in run.lines("val") if line["step"] not in (0, run_step(best))}
    values = {step: line["accuracy"] for step, line in evaluated.items()}
    assert values[run.summary["best_step"]] == max(values.values())
    assert run.summary["metrics"]["val"]["accuracy"] == max(values.values())
    assert cli("evaluate", run.directory).exit_code == 0


def run_step(path):
    return int(path.name.split("-")[1])


def test_a_run_of_which_everything_is_damaged(run, cli):
    for file in run.directory.rglob("state.json"):
        cut(file)
    result = cli("run", "--resume", run.directory)
    assert result.exit_code == 1
    assert "has no whole checkpoint to continue from:" in result.stderr


def test_an_evaluation_by_another_measure_is_not_compared(worse_at_the_end, cli, tmp_path):
    run = type(worse_at_the_end)(shutil.copytree(worse_at_the_end.directory, tmp_path / "run"), None)
    best = run.checkpoint("best")
    other = next(
        path
        for path in (run.directory / "checkpoints" / f"step-{step:08d}" for step in (3, 6, 9))
        if path.is_dir() and path != best
    )

    def before(state):
        state["monitor"] = "loss"
        state["judge"]["latest"]["value"] = 99.0

    forge(other, before)
    flipped(best / "model.safetensors")
    result = cli("run", "--resume", run.directory)
    assert result.exit_code == 0, result.output
    assert "the best checkpoint is lost: " in plain(result.stdout)
    assert run.checkpoint("best") not in (best, other)


def test_a_best_pointer_that_is_damaged_is_mended(run, cli):
    best = run.checkpoint("best")
    (run.directory / "checkpoints" / "best.json").write_text('{"checkpoint": []}')
    assert "best.json is damaged: it names no checkpoint" in cli("evaluate", run.directory).stderr
    result = cli("run", "--resume", run.directory)
    assert f"it leads to {best.name} again" in plain(result.stdout)
    assert run.checkpoint("best") == best
    assert cli("evaluate", run.directory).exit_code == 0


# --- made to do harm ---------------------------------------------------------------------------------------------


def forge(path, change):
    """Change a checkpoint's state and make its manifest fit."""
    from ftengine.checkpoint import sha256

    file = path / "state.json"
    state = json.loads(file.read_text())
    change(state)
    file.write_text(json.dumps(state))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"]["state.json"] = sha256(file)
    (path / "manifest.json").write_text(json.dumps(manifest))


FORGED = {
    "a list for the judge": lambda state: state.update(judge=[]),
    "a text for the best": lambda state: state["judge"]["best"].update(value="../../x"),
    "a list for tasks": lambda state: state.update(tasks=["../../x"]),
    "a text for data": lambda state: state.update(data="../../x"),
    "a huge number": lambda state: state.update(images=10**400),
    "no parts": lambda state: state.update(parts=0),
    "a negative time": lambda state: state.update(elapsed=-1),
    "the audit": lambda state: state.update(audit={"w": {"a": 1}}),
    "a meter of texts": lambda state: state["meter"].update(sums={"loss": "NaN"}),
    "a short epoch loss": lambda state: state.update(epoch_loss=[]),
    "a start that is a path": lambda state: state.update(start=["../../x"]),
    "nothing": lambda state: state.clear() or state.update(step=9),
    "a scaler": lambda state: state.update(scaler={"scale": "1"}),
    "half a scaler": lambda state: state.update(scaler={"scale": 65536.0}),
    "another start": lambda state: state.update(start="../../x"),
    "more steps than the run has": lambda state: state.update(finished_epochs=10**6),
    "state of the optimizer": lambda state: state.update(optimizer={"../../x": [1]}),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_a_forged_state_is_refused(run, cli, change):
    forge(run.checkpoint(), change)
    result = cli("run", "--resume", run.directory)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert str(run.directory) in result.stderr or "optimizer state holds" in result.stderr


def test_the_state_of_a_scaler_is_taken(run):
    state = json.loads((run.checkpoint() / "state.json").read_text())
    for scaler in (torch.amp.GradScaler("cpu"), torch.amp.GradScaler("cpu", enabled=False)):
        check_state({**state, "scaler": scaler.state_dict()}, run.checkpoint())


@pytest.mark.parametrize("tasks", [{}, [], None, {"classification": {}}, {"classification": {"names": 3}}], ids=str)
def test_forged_tasks_are_refused_by_all_commands(run, cli, tmp_path, tasks):
    forge(run.checkpoint("best"), lambda state: state.update(tasks=tasks))
    for arguments in (["evaluate", run.directory], ["export", run.directory, tmp_path / "model.safetensors"]):
        result = cli(*arguments)
        assert result.exit_code == 1
        assert "the state of task 'classification' is damaged" in result.stderr


def test_a_manifest_cannot_name_other_files(run, cli, tmp_path):
    (tmp_path / "canary").write_text("secret")
    file = run.checkpoint("best") / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["sha256"]["../../../canary"] = "0" * 64
    file.write_text(json.dumps(manifest))
    result = cli("evaluate", run.directory)
    assert result.exit_code == 1
    assert "its manifest names ../../../canary" in result.stderr
