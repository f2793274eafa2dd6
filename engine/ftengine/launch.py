"""How many processes a run has, and which of them this one is: RANK, WORLD_SIZE and LOCAL_RANK, as torchrun sets them.

Nothing else says it, so that SLURM, Ray or a shell script can start a run as well as torchrun.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ftengine.errors import FtengineError


@dataclass(frozen=True)
class Launch:
    """`rank` in 0..`size` - 1 among all processes, `local_rank` among those of this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    @property
    def prefix(self) -> str:
        """What an error's text begins with."""
        return "" if self.main else f"[rank {self.rank}] "


def launched(environment: Mapping[str, str] = os.environ) -> Launch:
    """What the environment says; one process where there is no WORLD_SIZE. Raises FtengineError where it is unclear."""
    if environment.get("WORLD_SIZE", "1") == "1":
        return Launch()
    rank, size, local_rank = (_number(environment, name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if size < 1 or not 0 <= rank < size or not 0 <= local_rank <= rank:
        raise FtengineError(
            f"RANK={rank}, WORLD_SIZE={size}, LOCAL_RANK={local_rank} do not fit together: expected 0 <= LOCAL_RANK <= "
            "RANK < WORLD_SIZE"
        )
    return Launch(rank, size, local_rank)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name)
    if text is None:
        raise FtengineError(
            f"WORLD_SIZE is {environment['WORLD_SIZE']}, but {name} is not set: start all processes with torchrun, or "
            "set RANK, WORLD_SIZE and LOCAL_RANK for each of them"
        )
    try:
        return int(text)
    except ValueError:
        raise FtengineError(f"{name} is {text!r}; expected a whole number") from None
