"""``ftengine verify-resume``: a good config is proved, and hidden randomness is caught and named."""

import pytest
import torch

from ftengine import repeatable
from ftengine.identical import TIMES, Comparison, compare_runs, tensor_difference
from ftengine.verify import Points


@pytest.fixture
def verify(cli, config_file, third_party_site, third_party, monkeypatch, tmp_path):
    """Verifies the base config with changes; its processes find the third parties, and nothing is left behind."""
    monkeypatch.setenv("PYTHONPATH", str(third_party_site))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(changes=None, *arguments):
        result = cli("verify-resume", "--config", config_file(changes), *arguments)
        assert list(tmp_path.glob("ftengine-*")) == []
        assert not (tmp_path / "runs").exists()
        return result

    return run


@pytest.fixture
def in_this_process(cli, monkeypatch):
    """What would be processes are calls: another process of one command takes seconds to import torch."""

    def run(arguments, log, folder, signals, *, accepted=()):
        module, *rest = arguments
        if module == "ftengine":
            return cli(*rest).exit_code
        assert module == "ftengine.repeatable"
        monkeypatch.setattr("sys.argv", [module, *rest])
        repeatable.main()
        return 0

    monkeypatch.setattr("ftengine.verify.run_process", run)


@pytest.mark.slow
def test_a_good_config_is_proved_in_processes_of_their_own(verify):
    result = verify()
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].startswith("identical: ")


def test_a_good_config_is_proved(verify, in_this_process):
    result = verify({"train": {"ema": 0.9}, "head": {"name": "mlp", "hidden": [8], "dropout": 0.5}})
    assert result.exit_code == 0, result.output
    last = result.stdout.splitlines()[-1]
    assert last.startswith("identical: ")
    assert last.endswith("(stopped after step 1 of 4, an epoch has 3)")


@pytest.mark.parametrize(
    ("changes", "differs", "cause"),
    [
        (
            {"loss": {"name": "saboteur/hidden", "what": "randomness"}},
            "two runs without a stop differ too",
            "the loss saboteur/hidden does not give the same twice for one batch",
        ),
        (
            {"loss": {"name": "saboteur/hidden", "what": "state"}},
            "two runs without a stop are identical: what is lost is lost by the resume",
            "the loss saboteur/hidden does not give the same twice for one batch",
        ),
        (
            {"data": {"format": "saboteur/unstable", "limit": None}},
            "two runs without a stop differ too",
            "the dataset saboteur/unstable does not give the same sample twice",
        ),
    ],
    ids=["a loss with randomness", "a loss with state", "a dataset with randomness"],
)
def test_what_is_hidden_is_caught_and_named(verify, in_this_process, changes, differs, cause):
    result = verify(changes, "--steps", "5", "--at", "2")
    assert result.exit_code == 1
    assert "different: " in result.stdout
    assert "(stopped after step 2 of 5, an epoch has 3)" in result.stdout
    assert "model.safetensors: backbone.stages.c1.0.weight: " in result.stdout
    assert differs in result.stdout
    assert cause in result.stdout


def test_a_run_that_fails_is_told_of_and_not_called_different(verify):
    result = verify({"backbone": {"weights": "nowhere.pth"}})
    assert result.exit_code != 0
    assert "nowhere.pth" in result.output
    assert "different" not in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--steps", "7"], "--steps 7: expected 2 to 6, the steps of the run"),
        (["--steps", "1"], "--steps 1: expected 2 to 6"),
        (["--at", "0"], "--at 0: expected 1 to 3, before the last of 4 steps"),
        (["--steps", "3", "--at", "3"], "--at 3: expected 1 to 2, before the last of 3 steps"),
    ],
)
def test_points_that_do_not_fit(verify, arguments, text):
    result = verify({}, *arguments)
    assert result.exit_code == 1
    assert text in result.stderr


def test_mistakes_are_told_of_before_anything_runs(cli, verify):
    assert cli("verify-resume").exit_code == 2
    result = verify({"optimizer": {"name": "adamm"}})
    assert result.exit_code == 2
    assert "adamm" in result.stderr


def test_every_kind_of_difference_is_found(runs):
    ours, other = runs(), runs({"train": {"seed": 1}})
    again = runs()
    same = compare_runs(ours.directory, again.directory)
    assert same.differences == []
    assert same.tensors > 20
    assert same.lines == len(ours.lines())
    found = compare_runs(ours.directory, other.directory).differences
    assert {difference.place for difference in found} == {
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "metrics.jsonl",
    }
    assert not {difference.name for difference in found} & TIMES
    shorter = runs({"train": {"epochs": 1}})
    assert str(compare_runs(ours.directory, shorter.directory).differences[0]) == (
        "checkpoints: last: step-00000006 and step-00000003"
    )


def test_tensors_are_compared_bit_by_bit():
    whole = torch.tensor([1.0, float("nan"), 0.0])
    assert tensor_difference(whole, whole.clone()) is None
    assert tensor_difference(whole, torch.tensor([1.5, float("nan"), -0.0])) == "2 of 3 elements, by up to nan"
    assert tensor_difference(torch.zeros(2), torch.tensor([0.25, 0.0])) == "1 of 2 elements, by up to 0.25"
    assert tensor_difference(torch.zeros(2), torch.zeros(2, 1)) == "float32 [2] and float32 [2, 1]"
    assert tensor_difference(torch.zeros(1), torch.zeros(1).double()) == "float32 [1] and float64 [1]"
    assert tensor_difference(torch.tensor(2), torch.tensor(5)) == "1 of 1 elements, by up to 3"
    assert tensor_difference(torch.zeros(0), torch.zeros(0)) is None


def test_points_know_whether_an_epoch_ends_between_them():
    assert Points(steps=5, at=2, per_epoch=3).crossed
    assert not Points(steps=5, at=3, per_epoch=3).crossed
    assert not Points(steps=20, at=10, per_epoch=100).crossed
    assert Comparison().differences == []
