"""The range test takes a run's own steps, and leaves the run as it was."""

import hashlib
import math
import signal

import pytest
import torch
import yaml
from rich.console import Console

from ftengine import lr_find
from ftengine.errors import FtengineError
from ftengine.guard import Computed
from ftengine.loop import feed
from ftengine.lr_find import range_test
from ftengine.resolve import load
from ftengine.run import assemble
from ftengine.signals import Signals
from ftengine.step import take_step
from run_configs import BASE, merged

CONFIG = merged(
    BASE,
    {
        "optimizer": {"name": "sgd", "lr": 0.05},
        "schedule": {"name": "constant"},
        "train": {"epochs": 4, "log_every": None},
    },
)
"""Three steps an epoch."""


@pytest.fixture
def training(tmp_path, third_party):
    """Builds a run that has not begun; nothing is written."""

    def build(**changes):
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(merged(CONFIG, changes)))
        console = Console(quiet=True)
        return assemble(load(file), tmp_path / "nowhere", console, Signals(), resume=False)

    return build


def train(run, steps):
    """`steps` of the loop's own steps, at the config's rates; their losses."""
    run.begin_epoch(run.step // run.steps_per_epoch)
    feeds = {name: feed(run, name, run.step, run.step + steps) for name in run.streams}
    losses = []
    for step in range(run.step, run.step + steps):
        take_step(run, feeds, step)
        run.step = step + 1
        losses.append(run.meter.take()["loss"])
    return losses


def digest(run):
    """A hash of all that a step could change."""
    made = hashlib.sha256()

    def add(value):
        if isinstance(value, torch.Tensor):
            made.update(str((value.dtype, tuple(value.shape))).encode())
            made.update(value.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key, inner in value.items():
                made.update(str(key).encode())
                add(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                add(inner)
        else:
            made.update(repr(value).encode())

    model, optimizer = run.model, run.optimizer
    add(dict(model.named_parameters()))
    add(dict(model.named_buffers()))
    add({name: parameter.grad for name, parameter in model.named_parameters()})
    add([parameter.requires_grad for parameter in model.parameters()])
    add([module.training for module in model.modules()])
    add([id(norm) for norm in model.frozen_norms])
    add(optimizer.state_dict())
    add([id(parameter) for group in optimizer.param_groups for parameter in group["params"]])
    add(run.precision.scaler.state_dict())
    add([run.step, run.saved, run.images, run.epoch_loss, run.meter.state(), run.trained])
    add([len(run.guard.waiting), vars(run.audit), run.freezer.policy.state()])
    add({name: value for name, value in vars(run.freezer).items() if name in ("since", "_frozen")})
    return made.hexdigest()


# --- the steps ---------------------------------------------------------------------------------------------------

SAME = {
    "plain": {},
    "accumulated and clipped": {"train": {"accumulate": 4, "clip_norm": 0.1}},
    "mixed": {"mix": {"mixup": 0.4, "cutmix": 1.0}},
    "augmented": {"augment": [{"name": "HorizontalFlip", "p": 0.5}]},
    "frozen": {"freeze": {"name": "stages", "through": "c3"}},
    "near the start": {"regularizers": [{"name": "l2_sp"}]},
    "bf16": {"train": {"precision": "bf16"}},
    "adaptive": {"optimizer": {"name": "adamw", "lr": 0.01}},
    "rates by place": {"optimizer": {"backbone_lr_mult": 0.1, "layer_decay": 0.5}},
}


@pytest.mark.parametrize("changes", SAME.values(), ids=SAME)
def test_at_the_config_s_rate_its_losses_are_the_run_s(training, changes):
    """Twelve steps are four epochs: the batches go on in the next one."""
    run = training(**changes)
    lr = run.plan.optimizer.lr
    curve = range_test(run, lr, math.nextafter(lr, 1), 12)
    assert [point.loss for point in curve.points] == train(run, 12)


def test_each_group_keeps_its_ratio(training):
    run = training(optimizer={"name": "sgd", "lr": 0.05, "head_lr_mult": 10.0, "layer_decay": 0.5})
    base = [group["base_lr"] for group in run.optimizer.param_groups]
    assert len({round(value, 9) for value in base}) > 2
    seen = []
    range_test(run, 1e-4, 1e-2, 10, lambda curve: seen.append([group["lr"] for group in run.optimizer.param_groups]))
    for step, rates in enumerate(seen):
        lr = 1e-4 * 100 ** (step / 9)
        assert rates == pytest.approx([value * lr / 0.05 for value in base], rel=1e-9)
    assert len(seen) == 10


def test_it_begins_where_the_run_is(training):
    run = training()
    train(run, 4)
    lr = run.plan.optimizer.lr
    curve = range_test(run, lr, math.nextafter(lr, 1), 10)
    assert [point.loss for point in curve.points] == train(run, 10)


def test_what_is_frozen_at_first_stays_so(training):
    run = training(freeze={"name": "gradual"})
    trained = []
    range_test(run, 1e-3, 1e-2, 12, lambda _: trained.append(sum(p.requires_grad for p in run.model.parameters())))
    assert len(trained) == 12
    assert set(trained) == {len(list(run.model.heads.parameters()))}


# --- the state ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd", "adamw", "adagrad"])
@pytest.mark.parametrize("steps", [0, 4])
def test_the_run_is_left_as_it_was(training, name, steps):
    run = training(optimizer={"name": name, "lr": 0.01}, freeze={"name": "gradual", "epochs_per_stage": 1})
    train(run, steps)
    next(run.model.heads.parameters()).grad = torch.ones_like(next(run.model.heads.parameters()))
    run.meter.add([Computed(["digit"], torch.tensor(1.5), {}, 1.0)])  # not logged yet
    run.model.eval()
    before, moved = digest(run), set()
    range_test(run, 1e-4, 1.0, 10, lambda _: moved.add(digest(run)))
    assert len(moved) == 10
    assert before not in moved
    assert digest(run) == before


def test_the_scale_of_gradients_is_left_as_it_was(training):
    """As in fp16, on a CPU: growing at every step, or shrinking where a gradient overflows."""
    run = training()
    run.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100, growth_interval=1)
    train(run, 2)
    before, scales = digest(run), set()
    scaler, scale = run.precision.scaler, run.precision.scaler.get_scale()
    range_test(run, 1e-4, 1e-2, 10, lambda _: scales.add(run.precision.scaler.get_scale()))
    assert scales == {scale}, "the test has a scaler of its own"
    assert run.precision.scaler is scaler
    assert digest(run) == before


def test_a_run_after_a_test_is_the_run_without_it(training):
    run, other = (
        training(freeze={"name": "gradual", "epochs_per_stage": 1}),
        training(freeze={"name": "gradual", "epochs_per_stage": 1}),
    )
    range_test(run, 1e-4, 1.0, 15)
    assert train(run, 3) == train(other, 3)
    assert train(run, 3) == train(other, 3)
    for (name, one), (_, two) in zip(run.model.state_dict().items(), other.model.state_dict().items(), strict=True):
        assert torch.equal(one, two), name


def test_a_policy_that_measures_decides_again_in_the_run(training):
    run = training(freeze={"name": "auto"})
    before = digest(run)
    range_test(run, 1e-4, 1e-1, 10)
    assert digest(run) == before


def test_nothing_is_written(training, tmp_path):
    run = training()
    range_test(run, 1e-4, 1e-1, 10)
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.yaml"]


# --- its end -----------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_it_and_leaves_the_run_as_it_was(training):
    run = training(backbone={"name": "acme/tiny", "weights": "none", "norm": "none"})
    before = digest(run)
    curve = range_test(run, 1e-3, 1e30, 20)
    assert curve.end in ("not finite", "diverged")
    assert len(curve.points) < 20
    assert digest(run) == before


def test_the_guard_s_error_is_the_end_of_the_test(training, monkeypatch):
    run = training()

    def poisoned(trial, feeds, step):
        if step == 3:
            with torch.no_grad():
                next(trial.model.heads.parameters()).fill_(math.nan)
        take_step(trial, feeds, step)

    monkeypatch.setattr(lr_find, "take_step", poisoned)
    before = digest(run)
    curve = range_test(run, 1e-3, 1e-1, 20)
    assert (curve.end, len(curve.points)) == ("not finite", 4)
    assert digest(run) == before


@pytest.mark.parametrize("broken", [True, False])
def test_a_head_that_fails_on_broken_weights_is_an_end_and_on_good_ones_an_error(training, monkeypatch, broken):
    run = training()

    def failing(trial, feeds, step):
        if step < 3:
            return take_step(trial, feeds, step)
        if broken:
            with torch.no_grad():
                next(trial.model.parameters()).fill_(math.inf)
        raise ValueError("matrix contains invalid numeric entries")

    monkeypatch.setattr(lr_find, "take_step", failing)
    before = digest(run)
    if broken:
        assert range_test(run, 1e-3, 1e-1, 20).end == "not finite"
    else:
        with pytest.raises(ValueError, match="invalid numeric entries"):
            range_test(run, 1e-3, 1e-1, 20)
    assert digest(run) == before


def test_a_signal_ends_it_after_the_step(training):
    run = training()
    before = digest(run)

    def advance(curve):
        if len(curve.points) == 3:
            run.signals.received = signal.SIGTERM

    curve = range_test(run, 1e-3, 1e-1, 20, advance)
    assert (curve.end, len(curve.points)) == ("interrupted", 3)
    assert digest(run) == before


def test_an_error_on_the_way_leaves_the_run_as_it_was(training):
    run = training()
    before = digest(run)

    def advance(curve):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        range_test(run, 1e-3, 1e-1, 20, advance)
    assert digest(run) == before


def test_rprop_has_no_rate_to_find(training):
    with pytest.raises(FtengineError, match=r"optimizer\.name: rprop finds the step of each weight by itself"):
        range_test(training(optimizer={"name": "rprop"}), 1e-3, 1e-1, 20)


def test_a_range_that_is_none_is_refused_before_anything_moves(training):
    run = training()
    before = digest(run)
    with pytest.raises(FtengineError, match=r"learning rates from 1 to 0\.1"):
        range_test(run, 1.0, 0.1, 20)
    assert digest(run) == before
