"""The first signal is noted, or cuts off what may be; a second one ends the process, whatever it is doing."""

import hashlib
import os
import select
import signal

import pytest

from ftengine import signals as module
from ftengine.signals import Interrupted, Signals

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture
def previous():
    """Handlers that only count; the test's own are put back."""
    calls = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    kept = {number: signal.signal(number, lambda received, _: calls.append(received)) for number in numbers}
    yield calls
    for number, handler in kept.items():
        signal.signal(number, handler)


def fork(child):
    """Runs `child` in a process of its own; its id."""
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(99)
    return pid


def exit_code(pid):
    """Of a process, when it has ended; negative for a signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@BOTH
def test_the_first_is_noted_and_handlers_are_put_back(previous, number):
    with Signals() as signals:
        signals.check()
        os.kill(os.getpid(), number)
        assert signals.received is number
        with pytest.raises(Interrupted, match=number.name) as stop:
            signals.check()
        assert stop.value.code == 128 + number
        assert previous == []
    os.kill(os.getpid(), number)
    assert previous == [number]


@pytest.mark.usefixtures("previous")
def test_signals_that_come_together_are_one():
    """As from `timeout`, which signals the process and then its group: the run is not ended by that."""
    with Signals() as signals:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert signals.received is signal.SIGTERM


@BOTH
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ends_the_process_with_its_code(monkeypatch, first, number):
    monkeypatch.setattr(module, "SAME", 0.0)

    def child():
        with Signals() as signals:
            os.kill(os.getpid(), first)
            assert signals.received is first
            os.kill(os.getpid(), number)
            signal.pause()

    assert exit_code(fork(child)) == 128 + number


def test_a_second_does_not_wait_for_code_that_no_handler_interrupts(monkeypatch):
    """As in a step of a large model: Python runs no handler before it is over."""
    monkeypatch.setattr(module, "SAME", 0.0)
    reader, writer = os.pipe()

    def child():
        with Signals():
            os.write(writer, b"x")
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # many minutes

    pid = fork(child)
    os.read(reader, 1)
    status = 0, 0
    while status == (0, 0):
        os.kill(pid, signal.SIGTERM)
        select.select([], [], [], 0.02)
        status = os.waitpid(pid, os.WNOHANG)
    assert os.waitstatus_to_exitcode(status[1]) == 143


@BOTH
def test_what_may_be_cut_off_is(number):
    reached = []

    def work(signals, part):
        with signals.at_once():
            reached.append(part)
            os.kill(os.getpid(), number)
            reached.append("the end")

    with Signals() as signals:
        with pytest.raises(Interrupted):
            work(signals, "the first")
        assert signals.received is number
        with pytest.raises(Interrupted):
            work(signals, "the second")
    assert reached == ["the first"]


def test_what_it_started_gets_the_second_too(monkeypatch):
    monkeypatch.setattr(module, "SAME", 0.0)
    reader, writer = os.pipe()

    def grandchild():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        os.write(writer, b"ready")
        signal.sigwait([signal.SIGTERM])
        os.write(writer, b"received")

    def child():
        with Signals() as signals:
            signals.children.add(fork(grandchild))
            assert os.read(reader, 5) == b"ready"
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

    assert exit_code(fork(child)) == 143
    assert os.read(reader, 8) == b"received"
