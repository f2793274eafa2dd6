"""Runs as processes of their own: a crash is theirs alone, and their memory is measured by itself. Needs no torch."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ftengine.signals import Signals

POLL = 0.25
"""Seconds between looks at a process."""
STOPPED = {130: 130, 143: 143, -signal.SIGINT: 130, -signal.SIGTERM: 143}
"""How a process ends that a signal has stopped, and how the comparison does then."""
LAST_LINES = 12


class StoppedBySignal(Exception):  # noqa: N818 - not an error
    """Ctrl-C or SIGTERM ended a run; `code` is the exit code for it."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run_process(
    arguments: Sequence[str],
    log: Path,
    folder: str,
    signals: Signals,
    look: Callable[[], None] = lambda: None,
    *,
    accepted: Sequence[int] = (),
) -> int:
    """Run ``python -m <arguments>`` in `folder`, with what it prints added to `log`; returns its exit code.

    `look` is called again and again while it runs. The first signal is handed on, so that the run saves and stops; it
    is in a process group of its own, and gets none twice. Raises StoppedBySignal when it has stopped, unless it ended
    with one of the exit codes `accepted`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            process_group=0,
        )
        signals.children.add(child.pid)  # a second signal is not waited for, here or there
        try:
            code = _wait(child, signals, look)
        except BaseException:
            child.terminate()
            child.wait()
            raise
        finally:
            signals.children.discard(child.pid)
    if signals.received is not None:
        raise StoppedBySignal(128 + signals.received)
    if code in STOPPED and code not in accepted:
        raise StoppedBySignal(STOPPED[code])
    return code


def _wait(child: subprocess.Popen[bytes], signals: Signals, look: Callable[[], None]) -> int:
    told = False
    while True:
        try:
            return child.wait(POLL)
        except subprocess.TimeoutExpired:
            pass
        if signals.received is not None and not told:
            child.send_signal(signals.received)
            told = True
        look()


def last_words(log: Path, code: int) -> str:
    """What a process that failed said at the end: from its error on, or its last lines."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    starts = [index for index, line in enumerate(lines) if line.startswith("Error:") and code > 0]
    said = lines[starts[-1] :] if starts else lines
    if code < 0:
        hint = "; the system may have run out of memory" if code == -signal.SIGKILL else ""
        said = [*said, f"ended by {signal.Signals(-code).name}{hint}"]
    return "\n".join(said[:LAST_LINES] if starts else said[-LAST_LINES:]) or f"exit code {code}"


def tail(file: Path, size: int = 8192) -> list[dict[str, Any]]:
    """The last whole lines of a file of JSON lines that is being written."""
    try:
        with file.open("rb") as stream:
            end = stream.seek(0, 2)
            stream.seek(max(0, end - size))
            data = stream.read()
    except FileNotFoundError:
        return []
    lines = data.split(b"\n")[:-1]  # behind the last line's end is nothing, or the start of the next
    found = []
    for line in lines if end <= size else lines[1:]:
        found.append(json.loads(line))
    return found
