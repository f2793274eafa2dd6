"""The peak is of what came after, the model's own size included."""

import mmap
import os

import torch
from tiny import make_model

from ftengine import memory
from ftengine.memory import PeakMemory, available_memory

SIZE = 64 * 2**20


def fill():
    """Use new memory for a while: not what an allocator has kept."""
    with mmap.mmap(-1, SIZE) as memory:
        for page in range(0, SIZE, mmap.PAGESIZE):
            memory[page] = 1


def test_what_was_needed_for_a_while_counts_and_what_was_before_does_not():
    fill()
    model = make_model()
    peak = PeakMemory(model, torch.device("cpu"))
    own = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    assert own <= peak.bytes < own + SIZE / 4
    fill()
    assert 0.9 * SIZE < peak.bytes < 1.5 * SIZE
    peak.before = 10 * SIZE
    assert peak.bytes == 10 * SIZE


def test_where_linux_does_not_tell_the_peak_is_the_process_s(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "PROCESS", tmp_path / "absent")
    peak = PeakMemory(make_model(), torch.device("cpu"))
    assert peak.bytes >= 0
    assert memory._peak() > 100 * 2**20, "torch alone is larger"


def test_available_memory_is_within_the_machine_s_and_the_container_s(monkeypatch, tmp_path):
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < available_memory() <= machine
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    limit.write_text("max\n")
    used.write_text("1000\n")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", ((limit, used), (tmp_path / "none", tmp_path / "none")))
    assert available_memory() > 5000
    limit.write_text("6000\n")
    assert available_memory() == 5000
    used.write_text("7000\n")
    assert available_memory() == 0
