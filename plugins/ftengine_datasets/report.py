"""What is wrong in a split's files: what can be repaired safely is noted, the rest fails, all of it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ftengine.errors import DataError

SHOWN = 10
"""So many cases are named; the others are counted."""


class Report:
    """The findings in one split. `split` and `source`, the file or folder with the annotations, begin its messages."""

    def __init__(self, split: str, source: object) -> None:
        self.notes: list[str] = []
        self.split = split
        self._source = source
        self._count = 0
        self._problems: list[str] = []

    def problem(self, text: str) -> None:
        """Something that cannot be repaired: `text` names the place in the files."""
        self._count += 1
        if len(self._problems) < SHOWN:
            self._problems.append(text)

    def problems(self, places: Sequence[int] | np.ndarray, text: Callable[[int], str]) -> None:
        """One problem at each of `places`; only those that will be shown are put into words."""
        for place in places[: SHOWN - len(self._problems)]:
            self._problems.append(text(int(place)))
        self._count += len(places)

    def repaired(self, places: Sequence[int] | np.ndarray, name: Callable[[int], str], one: str, several: str) -> None:
        """A note of what was done at `places`, if there are any: `one` or, with their number before it, `several`."""
        if len(places):
            names = [name(int(place)) for place in places[:SHOWN]]
            cases = ", ".join([*names, "…"] if len(places) > SHOWN else names)
            what = f"1 {one}" if len(places) == 1 else f"{len(places)} {several}"
            self.notes.append(f"{self.split}: {what} ({cases})")

    def check(self) -> None:
        """Raises DataError with all problems, if there are any."""
        if not self._count:
            return
        head = f"{self.split}: {self._source}: {self._count} problem{'s' if self._count > 1 else ''}"
        rest = self._count - len(self._problems)
        more = [f"… and {rest} other{'s' if rest > 1 else ''}"] if rest else []
        raise DataError("\n  ".join([f"{head}:", *self._problems, *more]))
