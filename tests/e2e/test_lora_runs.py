"""Runs with LoRA: what moves, stopped and resumed, evaluated, exported, and built upon."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

LORA = {"adapter": {"name": "lora", "rank": 2}}
ATTENTION = {"backbone": {"name": "timm", "model": "test_vit"}, "image": {"size": 32}}
READ = {"backbone": {"name": "timm", "model": "test_nfnet"}, "image": {"size": 32}}
"""A network that standardises its convolutions' weights: they are read, not only applied."""
KEEP = {"optimizer": {"name": "sgd", "lr": 1e-30}, "train": {"epochs": 1}}
"""A run that ends with the weights it began with."""


@pytest.fixture(scope="module")
def run(runs):
    return runs({**LORA, "optimizer": {"lr": 0.05}})


def inside(tensors):
    prefix = "backbone.stages."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def logits(model, images):
    """The model's answers to images in 0..1."""
    from ftengine.model import StreamBatch
    from ftengine.protocols import Frame

    pixels = (images * 255).to(torch.uint8)
    batch = StreamBatch(pixels, {}, ["?"] * len(pixels), [Frame.whole(*pixels.shape[1:3])] * len(pixels))
    with torch.no_grad():
        (result,) = model(batch, list(model.heads)).results.values()
    return result.output["logits"]


def opened(run):
    """The run's best model with its adapter, and with it merged."""
    from ftengine.export import open_merged, pick_checkpoint
    from ftengine.inference import open_run
    from ftengine.resolve import resolve
    from ftengine.run_config import run_document

    plan = resolve(run_document(run.directory), trained=True)
    best = pick_checkpoint(run.directory, "best")
    return open_run(run.directory, plan).model, open_merged(run.directory, plan, best).model


@pytest.mark.parametrize(
    "changes",
    [{}, pytest.param(ATTENTION, marks=pytest.mark.slow), READ],
    ids=["BatchNorm", "ViT", "read weights"],
)
def test_only_the_updates_and_the_head_move(runs, changes):
    start = runs({**LORA, **changes, **KEEP}).tensors()
    end = runs({**LORA, **changes}).tensors()
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    own = {name for name in start if "lora_" in name or name.startswith("heads.")}
    assert moved <= own
    if changes is READ:  # new, its residual branches have a factor of zero, and get no gradient
        assert any("parametrizations.weight.0.lora_B" in name for name in moved)
    else:
        assert moved == own
    plain = runs({**KEEP, **changes, "freeze": "all"}).tensors()
    base = {
        name.replace(".base_layer.", ".").replace(".parametrizations.weight.original", ".weight"): tensor
        for name, tensor in end.items()
        if name not in own
    }
    assert base.keys() == {name for name in plain if not name.startswith("heads.")}
    assert all(torch.equal(plain[name], base[name]) for name in base), "the backbone's own are its first"


def test_the_first_loss_is_that_of_the_backbone(runs):
    changes = {"freeze": "all", "train": {"epochs": 1}}
    with_updates = runs({**LORA, "train": {"epochs": 1}}).lines()
    without = runs(changes).lines()
    first = [next(line for line in lines if line["split"] == "train") for lines in (with_updates, without)]
    assert first[0]["loss"] == first[1]["loss"]
    starts = [next(line for line in lines if line["split"] == "val") for lines in (with_updates, without)]
    assert starts[0]["loss"] == starts[1]["loss"]


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": {"name": "lora", "rank": 2, "dropout": 0.3}, "train": {"ema": 0.9}},
        {**LORA, **READ, "train": {"accumulate": 2}},
    ],
    ids=["dropout, ema", "read weights, accumulate"],
)
@pytest.mark.parametrize("stop", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_ends_with_the_same_bytes(runs, cli, tmp_path, changes, stop):
    trigger = tmp_path / "trigger"
    parts = changes["train"].get("accumulate", 1)
    loss = {"name": "saboteur/failing", "what": "SIGINT", "at": stop * parts, "trigger": str(trigger)}
    whole = runs({**changes, "loss": loss})
    trigger.touch()
    stopped = runs({**changes, "loss": loss}, exit_code=130)
    assert stopped.checkpoint().name == f"step-{stop:08d}"
    trigger.unlink()
    result = cli("run", "--resume", stopped.directory)
    assert result.exit_code == 0, result.output
    assert stopped.bytes() == whole.bytes()
    assert stopped.bytes("best") == whole.bytes("best")
    ours, theirs = stopped.tensors(file="optimizer"), whole.tensors(file="optimizer")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert stopped.summary["metrics"] == whole.summary["metrics"]


def test_evaluation_and_prediction_are_the_run_s(run, cli, write_image, tmp_path):
    result = cli("evaluate", run.directory)
    assert result.exit_code == 0, result.output
    measured = json.loads((run.directory / "evaluation-val.json").read_text())["metrics"]
    assert measured == pytest.approx(run.summary["metrics"]["val"])
    image = write_image(tmp_path / "a.png", size=(16, 16))
    result = cli("predict", run.directory, image)
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    "changes",
    [{}, pytest.param(ATTENTION, marks=pytest.mark.slow), READ],
    ids=["BatchNorm", "ViT", "read weights"],
)
def test_merged_it_answers_as_before(runs, changes):
    run = runs({**LORA, **changes, "optimizer": {"lr": 0.05}})
    adapted, plain = opened(run)
    images = torch.rand(4, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    expected = logits(adapted, images)
    torch.testing.assert_close(logits(plain, images), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    assert (logits(adapted, images) - expected).abs().max() > 1e-3, "the updates matter"


def test_what_is_exported_is_merged(runs, run, cli, tmp_path):
    file = tmp_path / "w.safetensors"
    result = cli("export", run.directory, file)
    assert result.exit_code == 0, result.output
    assert "lora merged" in result.stdout
    tensors = load_file(file)
    plain = runs(KEEP).tensors()
    assert tensors.keys() == inside(plain).keys() | {name for name in plain if name.startswith("heads.")}
    own = run.tensors("best")
    factors = [own[f"backbone.stages.c2.0.lora_{which}.default.weight"] for which in "BA"]
    update = (16 / 2) * torch.einsum("orxy,rihw->oihw", *factors)
    expected = own["backbone.stages.c2.0.base_layer.weight"] + update
    torch.testing.assert_close(tensors["c2.0.weight"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("adapter", [None, {"name": "lora", "rank": 3}], ids=["plain", "adapted again"])
def test_another_run_starts_from_the_merged_weights(runs, run, cli, tmp_path, adapter):
    """From the run, from its exported file, and from the same tensors in a file that says nothing: the same bytes."""
    exported, bare = tmp_path / "exported.safetensors", tmp_path / "bare.safetensors"
    assert cli("export", run.directory, exported).exit_code == 0
    save_file({name: tensor for name, tensor in load_file(exported).items() if "heads" not in name}, bare)
    changes = {"train": {"epochs": 1}, "adapter": adapter, "image": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    started = [runs({**changes, "backbone": {"weights": f"run:{run.directory}"}})]
    started += [runs({**changes, "backbone": {"weights": str(file)}}) for file in (exported, bare)]
    assert "with its adapter merged" in started[0].result.stdout
    assert "not used by this backbone, as expected: 2 (heads." in started[1].result.stdout
    assert len({run.bytes() for run in started}) == 1
    other = runs(changes)
    assert other.bytes() != started[0].bytes()


def test_in_bf16(runs):
    run = runs({**LORA, **ATTENTION, "train": {"precision": "bf16"}})
    assert all(math.isfinite(line["loss"]) for line in run.lines())
    assert {tensor.dtype for name, tensor in run.tensors().items() if "lora" in name} == {torch.float32}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["c4.*"], "adapter.targets: no linear or convolutional layer is called 'c4.*'"),
        (["c1.1"], "adapter.targets: no linear or convolutional layer is called 'c1.1'; did you mean 'c1.0'?"),
    ],
)
def test_targets_that_match_nothing_end_the_run_before_it_starts(runs, targets, message):
    refused = runs({"adapter": {"name": "lora", "targets": targets}}, exit_code=1)
    assert message in refused.result.stderr
    assert not refused.directory.exists()


def test_an_option_that_lora_lacks(runs):
    refused = runs({"adapter": {"name": "lora", "rnk": 4}}, exit_code=2)
    assert "adapter.rnk" in refused.result.stderr
    assert "rank" in refused.result.stderr
