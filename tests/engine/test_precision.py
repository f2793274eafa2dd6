"""Device and precision: the rules of `auto`, and errors for what is not there."""

import pytest
import torch
from tiny import TinyBackbone, make_batch, make_model
from torch import nn

import ftengine.precision as module
from ftengine.config_train import TrainConfig
from ftengine.errors import FtengineError
from ftengine.precision import Precision, pick_device, pick_precision

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.fixture
def accelerator(monkeypatch):
    """Pretends that the machine has `count` accelerators of a kind."""

    def pretend(kind, count=1):
        device = None if kind is None else torch.device(kind)
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: device)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize(
    ("present", "wanted", "expected"),
    [
        (None, "auto", "cpu"),
        ("cuda", "auto", "cuda"),
        ("mps", "auto", "mps"),
        ("cuda", "cpu", "cpu"),
        ("cuda", "cuda", "cuda"),
        ("cuda", "cuda:1", "cuda:1"),
    ],
)
def test_devices(accelerator, present, wanted, expected):
    accelerator(present, 2)
    assert pick_device(wanted) == torch.device(expected)


@pytest.mark.parametrize(
    ("present", "wanted", "message"),
    [
        (None, "cuda", "train.device: cuda is not available on this machine; available: cpu"),
        ("mps", "cuda:0", "train.device: cuda:0 is not available on this machine; available: cpu, mps"),
        ("cuda", "mps", "train.device: mps is not available on this machine; available: cpu, cuda"),
        ("cuda", "cuda:2", "train.device: there is no cuda:2; devices: 2"),
    ],
)
def test_devices_that_are_not_there(accelerator, present, wanted, message):
    accelerator(present, 2)
    with pytest.raises(FtengineError) as error:
        pick_device(wanted)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("device", "computes", "expected"),
    [(CPU, True, "bf16"), (CPU, False, "fp32"), (CUDA, True, "bf16"), (CUDA, False, "fp16"), (MPS, True, "fp32")],
)
def test_automatic_precision(monkeypatch, device, computes, expected):
    monkeypatch.setattr(module, "_cpu_computes_bf16", lambda: computes)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: computes)
    assert pick_precision("auto", device) == expected


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_what_is_asked_for_is_used(device, wanted):
    assert pick_precision(wanted, device) == wanted


def test_fp16_needs_a_gpu():
    assert pick_precision("fp16", CUDA) == "fp16"
    with pytest.raises(FtengineError, match=r"train\.precision: fp16 needs a GPU; a CPU computes in fp32 or bf16"):
        pick_precision("fp16", CPU)


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_forward_pass_runs_in_the_precision(name, dtype):
    precision = Precision(TrainConfig(precision=name, device="cpu"), channels_last=False)
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert precision.state() == {}
    assert not precision.scaler.is_enabled()


@pytest.mark.parametrize(
    ("config", "backbone", "expected"),
    [("auto", True, True), ("auto", False, False), (True, False, True), (False, True, False)],
)
def test_memory_format(config, backbone, expected):
    precision = Precision(TrainConfig(channels_last=config, device="cpu"), channels_last=backbone)
    backbone_module = TinyBackbone()
    backbone_module.stages["c2"].add_module("up", nn.ConvTranspose2d(6, 6, 3))
    model = make_model(backbone=backbone_module)
    parameters = list(model.parameters())
    precision.place(model)
    assert precision.channels_last is expected
    weights = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    assert [w.is_contiguous(memory_format=torch.channels_last) for w in weights] == [expected] * 3
    assert all(now is before for now, before in zip(model.parameters(), parameters, strict=True))
    images = model.normalise(make_batch(2))
    for tensor in (images, *model.backbone(images).values()):
        assert tensor.is_contiguous(memory_format=torch.channels_last) is expected
        assert tensor.is_contiguous() is not expected


def test_compile_only_where_it_is_asked_for_and_only_the_backbone(monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    model = make_model()
    Precision(TrainConfig(device="cpu"), channels_last=False).place(model)
    assert compiled == []
    Precision(TrainConfig(device="cpu", compile=True), channels_last=False).place(model)
    assert compiled == [model.backbone]
