"""Two processes are one run: the same losses, the same weights, the same metrics as one process has."""

import itertools
import json
import os

import pytest
import torch
from tiny import TinyBackbone, make_model

from ftengine.config_train import TrainConfig
from ftengine.dist import World
from ftengine.errors import ConfigError, FtengineError, TrainingError
from ftengine.exchange import Exchange
from ftengine.guard import Computed, Fault
from ftengine.launch import Launch, launched
from ftengine.order import TrainOrder
from ftengine.parallel import check_alike, check_settings, of_all, synchronise_norms
from ftengine.precision import pick_device
from ranks import Ranks

CPU = torch.device("cpu")
SGD = {"name": "sgd", "lr": 0.05, "momentum": 0.9}
PLAIN = {"backbone": {"norm": "none"}, "optimizer": SGD, "train": {"epochs": 3}}
"""Without BatchNorm, and with an optimizer that does not blow up the last bits of a gradient."""


def test_the_environment_says_who_is_who():
    assert launched({}) == launched({"WORLD_SIZE": "1", "RANK": "0"}) == Launch()
    assert launched({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == Launch(3, 4, 1)
    assert Launch(3, 4, 1).prefix == "[rank 3] "
    assert Launch().prefix == ""


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK is not set: start all processes with torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "LOCAL_RANK is not set"),
        ({"WORLD_SIZE": "two", "RANK": "1", "LOCAL_RANK": "1"}, "WORLD_SIZE is 'two'; expected a whole number"),
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"}, "do not fit together"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "1"}, "do not fit together"),
    ],
)
def test_an_unclear_environment_is_refused(environment, text):
    with pytest.raises(FtengineError, match=text.replace("(", r"\(")):
        launched(environment)


def test_processes_that_cannot_meet_say_why(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(FtengineError, match="MASTER_ADDR is not set"), World.join(Launch(0, 2, 0), CPU, 1.0):
        pass
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    with (
        pytest.raises(TrainingError, match=r"have not met at 127\.0\.0\.1:1 within 1 seconds"),
        World.join(Launch(1, 2, 1), CPU, 1.0),
    ):
        pass


@pytest.mark.parametrize("command", ["evaluate", "predict", "compare", "lr-find", "export"])
def test_other_commands_are_for_one_process(cli, monkeypatch, command):
    for name, value in {"WORLD_SIZE": 2, "RANK": 1, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    result = cli(command, "x")
    assert result.exit_code == 2
    assert f"`ftengine {command}` works in one process, and WORLD_SIZE is 2" in result.stderr


def test_the_batch_is_shared_evenly():
    def problems(size, **train):
        with pytest.raises(ConfigError) as found:
            check_settings(TrainConfig(**train), size, CPU)
        return str(found.value)

    check_settings(TrainConfig(batch_size=12, accumulate=2), 3, CPU)
    check_settings(TrainConfig(batch_size=3, sync_batchnorm=True), 1, CPU)
    assert "train.batch_size: 32 samples cannot be shared by 3 processes evenly; nearest: 30 or 33" in problems(3)
    text = problems(3, batch_size=4, accumulate=2)
    assert "4 samples cannot be shared by 3 processes in 2 parts each evenly; nearest: 6" in text
    assert "train.sync_batchnorm: needs GPUs, and this run is on cpu" in problems(2, sync_batchnorm=True)
    assert "train.auto_micro_batch" in problems(2, sync_batchnorm=True, auto_micro_batch=True)


def test_every_process_has_its_device():
    assert pick_device("cpu", Launch(1, 2, 1)) == CPU
    with pytest.raises(FtengineError, match="cuda:1 is one device for 2 processes; say cuda"):
        pick_device("cuda:1", Launch(1, 2, 1))
    with pytest.raises(FtengineError, match="not on mps"):
        pick_device("mps", Launch(1, 2, 1))


@pytest.mark.parametrize("size", [2, 3])
def test_the_parts_of_a_batch_are_the_batch(size):
    whole = list(TrainOrder(50, 12, 7, "s", 3, 9))
    parts = [list(TrainOrder(50, 12, 7, "s", 3, 9, rank=rank, size=size)) for rank in range(size)]
    assert [list(itertools.chain(*own)) for own in zip(*parts, strict=True)] == whole
    assert {len(part) for own in parts for part in own} == {12 // size}


@pytest.mark.parametrize(("count", "size"), [(0, 2), (1, 3), (5, 3), (7, 2), (8, 4)])
def test_shares_are_contiguous_and_the_first_is_the_largest(count, size):
    shares = [World(Launch(rank, size, 0)).share(count) for rank in range(size)]
    assert [index for share in shares for index in share] == list(range(count))
    assert max(map(len, shares)) == len(shares[0]) <= min(map(len, shares)) + 1


def test_one_process_uses_nothing_of_it(runs, monkeypatch):
    monkeypatch.setattr(torch.distributed, "init_process_group", None)
    alone = runs()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert runs().bytes() == alone.bytes()
    assert alone.summary["processes"] == 1
    assert not torch.distributed.is_initialized()


def test_synchronised_norms_keep_hooks_names_and_freezing():
    from ftengine.model import NORMS

    model = make_model()
    names, seen = list(model.state_dict()), []
    norm = model.backbone.stages["c1"][1]
    norm.register_forward_hook(lambda *_: seen.append(1))
    weight = norm.weight
    synchronise_norms(model)
    assert isinstance(norm, torch.nn.SyncBatchNorm)
    assert isinstance(norm, NORMS)
    assert model.backbone.stages["c1"][1].weight is weight
    assert list(model.state_dict()) == names
    model.eval()
    model.backbone(torch.zeros(1, 3, 8, 8))
    assert seen == [1]

    class Activated(torch.nn.BatchNorm2d):
        pass

    backbone = TinyBackbone()
    backbone.stages["c2"][1] = Activated(6)
    with pytest.raises(FtengineError, match=r"stages.c2.1 is a Activated, which does more than BatchNorm"):
        synchronise_norms(backbone)


def together(tmp_path, work, size=2, code=0):
    """`work(world)` in each of `size` processes; what each of them returned, as JSON data."""

    def run():
        with World.join(launched(), CPU, 60.0) as world:
            found = work(world)
        (tmp_path / f"answer-{world.rank}").write_text(json.dumps(found))

    ended = Ranks(tmp_path / "ranks", size, work=run).ended()
    assert [one.code for one in ended] == [code] * size, "\n".join(one.stderr for one in ended)
    return [json.loads((tmp_path / f"answer-{rank}").read_text()) for rank in range(size)]


def test_what_one_step_exchanges(tmp_path):
    """Gradients that one process has, statistics of BatchNorm, other buffers, terms that one process has."""

    def work(world):
        model = make_model(("a", "b"))
        model.register_buffer("other", torch.zeros(2, dtype=torch.int64))
        model.register_buffer("still", torch.full((3,), 0.1))
        model.train()
        model.backbone.stages["c2"].eval()
        exchange = Exchange(world, model)
        first, second = model.heads["a"].fc.weight, model.heads["b"].fc.weight
        channels_last = model.backbone.stages["c2"][0].weight
        channels_last.data = channels_last.data.to(memory_format=torch.channels_last)
        answers = []
        for step in range(2):
            own = world.rank + 1 + 10 * step
            first.grad = torch.full_like(first, own)
            second.grad = torch.full_like(second, own) if world.rank == 1 else None
            channels_last.grad = torch.arange(216.0).view(6, 4, 3, 3) * own
            channels_last.grad = channels_last.grad.to(memory_format=torch.channels_last)
            norm, fixed = (model.backbone.stages[name][1] for name in ("c1", "c2"))
            norm.running_mean.fill_(own)
            fixed.running_mean.fill_(0.1)
            model.other += own
            terms = {"x": torch.tensor(4.0 * own)} | ({"y": torch.tensor(6.0)} if world.rank else {})
            parts = [Computed([f"{world.rank}"], torch.tensor(2.0 * own), terms, 0.5)]
            whole = exchange.step(parts, stop=15 * world.rank, due=world.main)
            values = {name: (float(term), part.share) for part in whole for name, term in part.terms.items()}
            assert torch.equal(channels_last.grad, torch.arange(216.0).view(6, 4, 3, 3) * (3 + 20 * step))
            means = [
                float(tensor.mean()) for tensor in (first.grad, second.grad, norm.running_mean, fixed.running_mean)
            ]
            answers.append(
                {
                    "means": means,
                    "no gradient": model.heads["a"].fc.bias.grad is None,
                    "buffers": [model.other.tolist(), float(model.still[0])],
                    "loss": sum(float(part.loss) * part.share for part in whole),
                    "terms": values,
                    "ids": whole[0].ids,
                    "flags": [exchange.stop, exchange.due],
                }
            )
        return answers

    tenth = float(torch.tensor(0.1))
    for rank, (once, again) in enumerate(together(tmp_path, work)):
        assert once == {
            "means": [3, 2, 1.5, tenth],
            "no gradient": True,
            "buffers": [[1, 1], tenth],
            "loss": 3,
            "terms": {"x": [6, 1], "y": [6, 0.5]},
            "ids": [f"{rank}"],
            "flags": [15, True],
        }
        assert again["means"][:3] == [23, 12, 11.5]
        assert again["buffers"][0] == [12, 12]
        assert (again["loss"], again["terms"]) == (23, {"x": [46, 1], "y": [6, 0.5]})


def test_weights_that_differ_are_noticed_and_faults_are_those_of_all(tmp_path):
    def work(world):
        model = make_model()
        check_alike(world, model, "now")
        mine = Fault(3, 1, "loss" if world.rank else "gradient", {"ce": float(world.rank)}, [f"sample-{world.rank}"])
        (fault,) = of_all(world, [mine])
        with torch.no_grad():
            model.heads["a"].fc.bias.view(torch.int32)[1] ^= world.rank  # the last bit
        with pytest.raises(TrainingError, match="after step 5 the weights of rank 1 are not those of rank 0"):
            check_alike(world, model, "after step 5")
        with pytest.raises(FtengineError, match="the data of rank 1 is not that of rank 0"):
            world.same("the data", world.rank)
        shown = world.from_main(lambda: os.environ["RANK"])
        return [fault.what, list(fault.ids), shown]

    assert together(tmp_path, work) == [["loss", ["sample-1"], "0"]] * 2


def test_an_error_of_the_first_process_is_told_to_all(tmp_path):
    def work(world):
        def fail():
            raise FtengineError("there is no room")

        world.from_main(fail)

    def run():
        with World.join(launched(), CPU, 60.0) as world:
            work(world)

    first, second = Ranks(tmp_path / "ranks", 2, work=run).ended()
    assert "there is no room" in first.stderr
    assert "another process of the run is lost: rank 0: there is no room" in second.stderr


# --- whole runs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ranked(tmp_path, config_file, runs):
    """Runs a config in two processes: ``ranked(changes)`` is the finished run."""

    def start(changes, *, name="ranked", size=2):
        directory = tmp_path / name
        arguments = ("run", "--config", config_file(changes), "--output", directory)
        ended = Ranks(tmp_path / f"{name}-said", size, *arguments).ended()
        assert [one.code for one in ended] == [0] * size, "\n".join(one.stderr for one in ended)
        assert [(one.stdout, one.stderr) for one in ended[1:]] == [("", "")] * (size - 1)
        return runs.of(directory, ended[0])

    return start


def assert_same_run(ours, theirs, atol=1e-6):
    """The losses of every step, the weights at the end, and what was measured of the weights at the start."""
    own, other = ours.lines("train"), theirs.lines("train")
    assert [line["step"] for line in own] == [line["step"] for line in other] == list(range(1, len(own) + 1))
    for mine, yours in zip(own, other, strict=True):
        assert mine.keys() == yours.keys()
        for name in mine:
            if name.startswith("loss"):
                assert mine[name] == pytest.approx(yours[name], rel=0, abs=atol), (mine["step"], name)
    start, same = (run.lines("val")[0] for run in (ours, theirs))
    assert start == same, "the first evaluation is of the same weights"
    weights, others = ours.tensors(), theirs.tensors()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=0, atol=1e-5)


JOINT = {
    "task": None,
    "tasks": {
        "digit": {"task": "classification", "metrics": ["accuracy"]},
        "ink": {"task": "regression", "metrics": ["mae"], "weight": 0.5},
    },
    "data": {"targets": ["value", "ink"]},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"clip_norm": 0.1, "ema": 0.9}, "regularizers": ["l2_sp"]},
        {"freeze": {"name": "gradual", "warmup_epochs": 0.5}, "train": {"swa": {"start": 0.4}}, **JOINT},
    ],
    ids=["clipped, averaged, near the start", "joint, unfreezing, averaged at the end"],
)
def test_two_processes_train_as_one(runs, ranked, changes):
    changes = {**PLAIN, **changes, "train": {**PLAIN["train"], **changes["train"]}}
    one, two = runs(changes), ranked(changes)
    assert_same_run(two, one)
    assert two.summary["processes"] == 2
    assert two.summary["metrics"]["val"] == pytest.approx(one.summary["metrics"]["val"], rel=1e-5)


def test_two_processes_are_one_with_twice_the_parts_to_the_bit(runs, ranked):
    """Also for terms that are no mean over samples: those of features, here."""
    changes = {
        **PLAIN,
        "regularizers": ["l2_sp", "feature_distill"],
        "freeze": {"name": "acme/first_epochs", "epochs": 1},
    }
    two = ranked({**changes, "train": {"epochs": 3}})
    one = runs({**changes, "train": {"epochs": 3, "accumulate": 2}})
    assert two.bytes() == one.bytes()
    drop = {"images_per_second": None}
    assert [{**line, **drop} for line in two.lines()] == [{**line, **drop} for line in one.lines()]


SCENES = {"format": "digits", "scenes": {"count": 24, "size": 48, "digits": [1, 2], "digit_size": [16, 24]}}
SCENES |= {"limit": None, "val_fraction": 0.25, "test_fraction": 0.25}
SEGMENTATION = {
    "task": "segmentation",
    "data": SCENES,
    "image": {"size": 48},
    "backbone": {"name": "resnet18"},
    "head": {"name": "unet", "norm": "none"},
    "train": {"batch_size": 4, "pictures": 0},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"freeze": {"name": "auto", "probe_epochs": 1, "batches": 2}, "schedule": {"name": "plateau", "patience": 0}},
        {"adapter": "lora", "train": {"ema": 0.9, "accumulate": 2}},
        {"train": {"wise_ft": {"grid": [0.5, 1.0]}, "workers": 1}, "data": {"test_fraction": 0.2}},
        {"task": "regression", "data": {"targets": ["ink"]}, "train": {"early_stopping": 1}},
        {**SEGMENTATION, "freeze": "all", "optimizer": {"name": "sgd", "lr": 0.01}},
    ],
    ids=["auto, plateau", "lora", "mixed with the start", "regression, early stopping", "segmentation"],
)
def test_two_processes_train_as_one_more(runs, ranked, changes):
    changes = {**PLAIN, **changes, "train": {**PLAIN["train"], **changes.get("train", {})}}
    assert_same_run(ranked(changes), runs(changes))


def test_what_has_batchnorm_and_dropout_is_the_same_in_every_process(ranked, runs):
    """check_alike holds the weights of all to be equal at every checkpoint; dropout differs between the processes."""
    changes = {"head": {"name": "mlp", "hidden": [16], "dropout": 0.5}, "mix": {"mixup": 0.5}}
    one, two = runs(changes), ranked(changes)
    assert two.bytes() == ranked(changes, name="again").bytes()
    assert two.bytes() != one.bytes()
    norm = "backbone.stages.c1.1.running_mean"
    assert float(two.tensors()[norm].norm()) > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"test_fraction": 0.3}, "metrics": ["accuracy", "f1", "auroc", "confusion_matrix"]},
        {**JOINT, "data": {**JOINT["data"], "test_fraction": 0.3}},
        pytest.param(
            {
                "task": "detection",
                "data": SCENES,
                "image": {"size": 48},
                "backbone": {"name": "resnet18"},
                "head": {"name": "fcos", "score_thresh": 0.001},
                "train": {"batch_size": 4, "eval_batch_size": 2, "pictures": 0},
            },
            marks=pytest.mark.slow,
        ),
        pytest.param(SEGMENTATION, marks=pytest.mark.slow),
    ],
    ids=["classification", "joint with regression", "detection", "segmentation"],
)
def test_metrics_of_two_processes_are_exactly_those_of_one(runs, tmp_path, changes):
    """A finished run is resumed by two processes, which measure its best checkpoint on the test split together."""
    train = {"epochs": 1, "eval_batch_size": 5, **changes.get("train", {})}
    one = runs({**changes, "train": train})
    before = one.summary["metrics"]["test"]
    values = [value for value in before.values() if value]
    assert len(values) > 1, "there is something to compare"
    ended = Ranks(tmp_path / "ranks", 2, "run", "--resume", one.directory).ended()
    assert [process.code for process in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    assert one.summary["processes"] == 2
    assert one.summary["metrics"]["test"] == before
