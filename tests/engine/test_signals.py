"""The first signal is noted, the second acts."""

import os
import signal

import pytest

from ftengine.signals import Signals


@pytest.fixture
def previous():
    """Handlers that only count; the test's own are put back."""
    calls = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    kept = {number: signal.signal(number, lambda received, _: calls.append(received)) for number in numbers}
    yield calls
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_noted_and_the_second_acts(previous, number):
    with Signals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received is number
        assert previous == []
        os.kill(os.getpid(), number)
    assert previous == [number]


def test_another_signal_counts_as_the_second(previous):
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received is signal.SIGTERM
    assert previous == [signal.SIGINT]


@pytest.mark.usefixtures("previous")
def test_handlers_are_put_back_also_after_an_error():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def fail():
        with Signals():
            assert signal.getsignal(signal.SIGINT) is not before[0]
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
