"""Memory that runs out, in both of torch's wordings: the same step in smaller parts, or an error that says why."""

import pytest
import torch
from rich.console import Console

from ftengine import step as steps
from ftengine.identical import compare_runs
from ftengine.loading import feed
from ftengine.model import Model
from ftengine.resolve import load
from ftengine.run import assemble
from ftengine.signals import Signals
from run_configs import merged

ERRORS = {
    "cuda": lambda: torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.5 GiB is "
        "free.\nSee documentation for Memory Management"
    ),
    "cpu": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate "
        "8589934592 bytes. Error code 12 (Cannot allocate memory)"
    ),
}
AUTO = {"train": {"auto_micro_batch": True}}
PLAIN = {"backbone": {"norm": "none"}, "optimizer": {"name": "sgd", "lr": 0.05}}


class Memory:
    """Has room for `images` at a time, of a forward pass in train or in eval mode, from step `since` on, from 1."""

    def __init__(self, monkeypatch, error):
        self.error, self.step, self.since = error, 0, 1
        self.train = self.eval = 10**6
        self.sizes, self.asked = {}, []
        forward, take = Model.forward, steps.take_step

        def limited(model, batch, tasks):
            if not torch.is_grad_enabled():
                self.asked.append(len(batch))
                room = self.eval
            else:
                self.sizes.setdefault(self.step, []).append(len(batch))
                room = self.train if self.step >= self.since else 10**6
            if len(batch) > room:
                forward(model, batch, tasks)  # BatchNorm has already seen it
                raise self.error()
            return forward(model, batch, tasks)

        def noted(run, feeds, step):
            self.step = step + 1
            take(run, feeds, step)

        monkeypatch.setattr(Model, "forward", limited)
        monkeypatch.setattr("ftengine.loop.take_step", noted)


@pytest.fixture(params=ERRORS)
def memory(request, monkeypatch):
    return Memory(monkeypatch, ERRORS[request.param])


@pytest.fixture
def small(monkeypatch):
    """As `memory`, with one wording."""
    return Memory(monkeypatch, ERRORS["cpu"])


@pytest.fixture
def assembled(config_file, tmp_path, third_party):
    """Builds a run that has not begun; nothing is written."""

    def build(changes):
        plan = load(config_file(changes))
        return assemble(plan, tmp_path / "nowhere", Console(quiet=True), Signals(), resume=False)

    return build


def laid(*changes):
    result = {}
    for change in changes:
        result = merged(result, change)
    return result


def test_the_same_step_is_done_again_in_smaller_parts(runs, memory):
    memory.train, memory.since = 5, 4
    run = runs(laid(PLAIN, AUTO))
    assert memory.sizes[3] == [16]
    assert memory.sizes[4] == [16, 8, 4, 4, 4, 4], "two failed attempts, then four parts"
    assert memory.sizes[5] == [4, 4, 4, 4], "the next step begins with them"
    text = run.result.stdout
    assert "out of memory in a batch of 16 images: " in text
    assert "the step is done again in 2 parts of at most 8 images; it takes the same batch as before" in text
    assert "the step is done again in 4 parts of at most 4 images" in text
    assert "BatchNorm" not in text
    assert [line["step"] for line in run.lines("train")] == [1, 2, 3, 4, 5, 6]


def test_without_batchnorm_the_run_is_the_one_with_enough_memory(runs, small):
    expected = runs(PLAIN)
    small.train = 5
    run = runs(laid(PLAIN, AUTO))
    for name, tensor in run.tensors().items():
        torch.testing.assert_close(tensor, expected.tensors()[name], rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(run.lines("train"), expected.lines("train"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-4)


def test_with_batchnorm_it_says_what_changes_once(runs, small):
    small.train = 5
    text = runs(AUTO).result.stdout
    assert text.count("BatchNorm normalises over each part: from now on it trains as with smaller batches") == 1


def test_statistics_of_failed_attempts_do_not_count(runs, small):
    """The third stage's counter: four parts in each of six steps."""
    small.train = 4
    run = runs(AUTO)
    counts = [tensor for name, tensor in run.tensors().items() if name.endswith("num_batches_tracked")]
    assert counts
    assert {int(count) for count in counts} == {6 * 4}


def test_a_gradient_that_is_half_there_does_not_count(runs, monkeypatch):
    """Memory runs out in the second of two parts; a dropout draws again what it drew before."""
    dropout = {"head": {"name": "mlp", "hidden": [8], "dropout": 0.5}, "train": {"accumulate": 2}}
    terms, calls, at = steps.weighted_terms, [], [4]

    def failing(*arguments):
        calls.append(None)
        if len(calls) in at:
            raise ERRORS["cuda"]()
        return terms(*arguments)

    monkeypatch.setattr(steps, "weighted_terms", failing)
    run = runs(laid(PLAIN, AUTO, dropout))
    assert "the step is done again in 4 parts of at most 4 images" in run.result.stdout
    at.clear()
    expected = runs(laid(PLAIN, dropout))
    for name, tensor in run.tensors().items():
        torch.testing.assert_close(tensor, expected.tensors()[name], rtol=1e-5, atol=1e-6)
    assert runs(laid(PLAIN, dropout, {"head": {"dropout": 0.4}})).bytes() != expected.bytes()


@pytest.mark.parametrize("stop", [2, 4, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (3, 5))])
def test_a_resumed_run_begins_with_the_parts_that_it_had(runs, cli, small, stop):
    """Memory is short at step 3 only: what came after it had four parts, and has them in a new process as well."""
    small.train = 4
    changes = laid(AUTO, {"train": {"ema": 0.9, "log_every": 2}})
    small.since = 3
    whole = runs(changes)
    stopped = runs(changes, "--stop-after", stop, exit_code=143)
    small.sizes.clear()
    small.train = 10**6 if stop >= 3 else 4
    assert cli("run", "--resume", stopped.directory).exit_code == 0
    assert small.sizes[stop + 1] == ([4] * 4 if stop >= 3 else [16, 8, 4, 4, 4, 4])
    assert compare_runs(stopped.directory, whole.directory).differences == []


def test_without_the_option_it_says_what_to_do(runs, memory):
    memory.train, memory.since = 10, 5
    run = runs(exit_code=1)
    text = run.result.stderr
    assert "out of memory in a batch of 16 images: " in text
    assert ("CUDA out of memory. Tried" in text) or ("DefaultCPUAllocator: can't allocate memory" in text)
    assert "set train.auto_micro_batch: true, raise train.accumulate, or lower train.batch_size or image.size" in text
    assert f"the last good checkpoint stays: {run.checkpoint()}" in text


def test_one_image_that_does_not_fit(runs, small):
    small.train = 0
    text = runs(laid(PLAIN, AUTO), exit_code=1).result.stderr
    assert "out of memory in 16 parts of at most 1 image: " in text
    assert "lower image.size, or freeze more stages" in text


@pytest.mark.parametrize(
    "why", [{"image": {"size": 8}}, {"mix": {"mixup": 0.4}}], ids=["BatchNorm of one value", "mixing"]
)
def test_parts_never_have_a_single_image_where_that_is_too_few(runs, small, why):
    small.train = 2
    runs(laid(AUTO, why))
    small.train = 1
    text = runs(laid(AUTO, why), exit_code=1).result.stderr
    assert "in 8 parts of at most 2 images, and a single image is too few for mixing or a BatchNorm layer" in text


def test_in_the_optimizer_it_cannot_be_done_again(runs, monkeypatch):
    take = torch.optim.AdamW.step

    def failing(optimizer, closure=None):
        if len(optimizer.param_groups) == 1:  # that of the forecast of disk space
            return take(optimizer, closure)
        raise ERRORS["cuda"]()

    monkeypatch.setattr(torch.optim.AdamW, "step", failing)
    text = runs(AUTO, exit_code=1).result.stderr
    assert "out of memory in the optimizer's step: CUDA out of memory. Tried to allocate 2.00 GiB." in text
    assert "freeze more stages, or use an optimizer that keeps less" in text


def test_an_error_that_is_not_of_memory_is_not_hidden(runs, monkeypatch):
    def failing(*_):
        raise RuntimeError("expected scalar type Float")

    monkeypatch.setattr(steps, "weighted_terms", failing)
    with pytest.raises(RuntimeError, match="expected scalar type Float"):
        runs(AUTO)


# --- evaluation --------------------------------------------------------------------------------------------------


def test_an_evaluation_goes_on_in_smaller_batches_with_the_same_predictions(runs, cli, memory):
    expected = runs()
    memory.eval = 5
    memory.asked.clear()
    run = runs(AUTO)
    assert memory.asked[:6] == [16, 8, 4, 4, 4, 4]
    assert run.bytes() == expected.bytes()
    assert run.summary["metrics"]["val"]["accuracy"] == expected.summary["metrics"]["val"]["accuracy"]
    assert run.summary["metrics"]["val"]["loss"] == pytest.approx(expected.summary["metrics"]["val"]["loss"], rel=1e-6)
    assert "out of memory in the evaluation of 16 images at a time: " in run.result.stdout
    assert "it goes on in 2 parts a batch, with the same predictions up to rounding" in run.result.stdout
    result = cli("evaluate", run.directory)
    assert result.exit_code == 0, result.output


def test_an_evaluation_without_the_option_says_what_to_do(runs, cli, small, image_folder, tmp_path):
    finished = runs()
    small.eval = 5
    text = runs(exit_code=1).result.stderr
    assert "out of memory in the evaluation of 16 images at a time: " in text
    assert "set train.eval_batch_size to less, or train.auto_micro_batch: true" in text
    images = image_folder(tmp_path / "images")
    for command in (["evaluate", finished.directory], ["predict", finished.directory, images]):
        result = cli(*command)
        assert result.exit_code == 1
        assert "set train.eval_batch_size to less" in result.stderr


def test_predictions_in_parts_are_the_same(runs, cli, small, image_folder, tmp_path):
    run = runs(AUTO)
    images = image_folder(tmp_path / "images")
    answers = []
    for room in (10**6, 3):
        small.eval = room
        result = cli("predict", run.directory, images)
        assert result.exit_code == 0, result.output
        answers.append([row.split(",") for row in result.stdout.splitlines()[1:]])
    assert len(answers[0]) == 18
    for whole, parts in zip(*answers, strict=True):
        assert whole[:2] == parts[:2], "the file and its class"
        assert [float(score) for score in whole[2:]] == pytest.approx([float(score) for score in parts[2:]], abs=1e-6)


# --- gradients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "parts"), [(6, 4), (16, 3), (5, 5), (4, 8)])
def test_the_gradient_of_parts_is_that_of_the_batch(assembled, size, parts):
    """In fp32, for equal parts and unequal ones, of a model without BatchNorm."""
    gradients, losses = [], []
    for count in (1, parts):
        run = assembled(laid(PLAIN, {"train": {"batch_size": size}}))
        run.micro.parts = count
        run.begin_epoch(0)
        batches = {name: next(iter(feed(run, name))) for name in run.streams}
        computed = steps.compute_gradients(run, batches)
        assert sum(part.share for part in computed) == pytest.approx(1)
        sizes = [len(part.ids) for part in computed]
        assert (sum(sizes), len(sizes), max(sizes) - min(sizes) <= 1) == (size, min(count, size), True)
        losses.append(sum(float(part.loss) * part.share for part in computed))
        gradients.append(torch.cat([p.grad.flatten() for p in run.model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-6)
