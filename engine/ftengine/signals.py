"""Ctrl-C and SIGTERM end a run after the step in progress, with everything saved."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Signals:
    """While the context is open, the first signal is only noted in `received`; a second one acts at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        for known, handler in self._previous.items():
            signal.signal(known, handler)
