"""Saves while the training goes on, from a copy that it cannot change any more."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ftengine.checkpoint import TENSORS, Snapshot, Store
from ftengine.config_faults import CheckpointConfig
from ftengine.disk import require
from ftengine.signals import Interrupted
from ftengine.tensor_file import bytes_of

if TYPE_CHECKING:
    from ftengine.training import Training

OTHERS = 1 << 20
"""Bytes of a checkpoint that are not tensors, generously."""


class Saver(Store):
    """The checkpoints of a run in progress, of which one may be being written.

    ``put`` writes one: in the background if the config says so, after the one before it is written. Whatever reads or
    moves a pointer waits until what is being written is there. As a context manager it waits at the end.

    `saved` is told of each checkpoint that is visible, and `warn` of what else went wrong; both in the thread of the
    training. What goes wrong in the background is raised there, too: at the next ``put``, ``poll`` or ``wait``.
    """

    def __init__(
        self, run: Path, config: CheckpointConfig, saved: Callable[[Path], None], warn: Callable[[str], None]
    ) -> None:
        super().__init__(run, config.keep)
        self.background = config.background
        self._saved = saved
        self._warn = warn
        self._thread: Thread | None = None
        self._written: Path | None = None
        self._error: BaseException | None = None
        self._buffers: dict[str, dict[str, Tensor]] = {kind: {} for kind in TENSORS}

    def put(self, step: int, snapshot: Snapshot, *, best: bool) -> None:
        """Save `snapshot` as `Store.save` does. Raises TrainingError where there is no room, or the disk refuses."""
        self.wait()
        needed = bytes_of(*(tensor for kind in TENSORS for tensor in getattr(snapshot, kind).values())) + OTHERS
        require(self.folder, needed, f"the checkpoint of step {step}")
        if not self.background:
            self._written = Store(self.run, self.keep).save(step, snapshot, best=best)
            self.wait()
            return
        copy = Snapshot(**{kind: self._copy(kind, getattr(snapshot, kind)) for kind in TENSORS}, state=_copy(snapshot))
        # A daemon: a process that is to end at once does not wait for it, and what it was writing is not visible yet.
        self._thread = Thread(target=self._write, args=(step, copy, best), name="checkpoint", daemon=True)
        self._thread.start()

    def _write(self, step: int, snapshot: Snapshot, best: bool) -> None:
        try:
            self._written = Store(self.run, self.keep).save(step, snapshot, best=best)
        except BaseException as error:  # it is raised where the training waits
            self._error = error

    def _copy(self, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of `tensors` on the CPU; their memory is that of the copies before, as far as it fits."""
        before, copies = self._buffers[kind], {}
        for name, tensor in tensors.items():
            copy = before.get(name)
            if copy is None or (copy.shape, copy.dtype) != (tensor.shape, tensor.dtype):
                copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            copies[name] = copy.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
            torch.cuda.synchronize(device)  # a synchronisation point: the copies to pinned memory are complete after it
        self._buffers[kind] = copies
        return copies

    def poll(self) -> None:
        """Tell of what has been written since, and raise what went wrong with it; does not wait."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written; raises what went wrong."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
        written, self._written = self._written, None
        if written is not None:
            self._saved(written)

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None or issubclass(kind, Interrupted):  # what was trained is to be there afterwards
            self.wait()
        elif issubclass(kind, Exception):  # not where the user wants to leave at once
            try:
                self.wait()
            except Exception as error:  # the other one is on its way up
                self._warn(str(error))

    # What reads or moves a pointer waits.

    def find(self, pointer: str) -> Path | None:
        self.wait()
        return super().find(pointer)

    def paths(self) -> list[Path]:
        self.wait()
        return super().paths()

    def write(self, name: str, snapshot: Snapshot) -> Path:
        self.wait()
        return super().write(name, snapshot)

    def point(self, pointer: str, checkpoint: Path) -> None:
        self.wait()
        super().point(pointer, checkpoint)


def _copy(snapshot: Snapshot) -> dict[str, object]:
    """The state as it will be read from its file: no part of it is the run's any more."""
    copy: dict[str, object] = json.loads(json.dumps(snapshot.state))
    return copy


def require_room(run: Training) -> None:
    """Raises TrainingError unless what a run will keep fits on the disk, as far as that is known before it.

    That is the file of its start, the checkpoints that stay, the best, and one that is being written. Of a backbone
    that is frozen for a time only the weights count, not what the optimizer may have for it later.
    """
    plan, model = run.plan, run.model
    weights = bytes_of(*model.state_dict().values())
    parameters = list(model.parameters())
    forecast = run.freezer.forecast(plan.config.train.epochs)
    if forecast is None or forecast.anything_frozen:
        backbone = {id(parameter) for parameter in model.backbone.parameters()}
        parameters = [parameter for parameter in parameters if id(parameter) not in backbone]
    probe = torch.zeros(64, 64, requires_grad=True)
    probe.grad = torch.zeros_like(probe)
    optimizer: torch.optim.Optimizer = getattr(torch.optim, plan.optimizer.torch_name)(
        [probe], **plan.optimizer.arguments()
    )
    optimizer.step()
    tensors = [value for value in optimizer.state[probe].values() if isinstance(value, Tensor)]
    state = bytes_of(*parameters) * bytes_of(*tensors) // bytes_of(probe)
    checkpoint = weights * (1 if run.average is None else 2) + state + OTHERS
    count = plan.config.checkpoint.keep + 2
    needed = weights + count * checkpoint
    require(run.tracker.info.directory, needed, f"the run, with {count} checkpoints at most,")
