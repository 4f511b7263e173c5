"""Checkpoints written while training goes on."""

import dataclasses
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from cleangpt2.training import checkpoint
from cleangpt2.training.runtime import ALONE, Runtime
from cleangpt2.training.sharded import is_sharded


class Writer:
    """Writes one checkpoint at a time, at once or in the background.

    All processes of a run call its methods together.

    with Writer(folder, keep=2, background=True) as writer:
        for step in steps:
            writer.check()
            ...
            writer.save(step, state)
    """

    def __init__(
        self, folder: Path, *, keep: int, background: bool, runtime: Runtime = ALONE
    ) -> None:
        self.folder, self.keep, self.runtime = folder, keep, runtime
        self._thread = ThreadPoolExecutor(1, "checkpoint") if background else None
        self._writing = runtime
        if background and runtime.world_size > 1:
            # Calls of two threads in one group would meet in any order; the threads have their own.
            self._writing = dataclasses.replace(runtime, group=dist.new_group(backend="gloo"))
        self._pending: Future[None] | None = None

    def save(self, step: int, state: dict[str, Any], *, spare: int | None = None) -> None:
        """Write the state; in the background a copy of it, once the last one is written.

        Raises:
            OutputError: This one, or in the background the last one, could not be written.
        """
        write = partial(checkpoint.save, keep=self.keep, spare=spare, runtime=self._writing)
        if not (self.runtime.is_main or is_sharded(state)):
            state = {}  # the main process writes for all
        if self._thread is None:
            write(self.folder, step, state)
            return
        self.wait()
        self._pending = self._thread.submit(write, self.folder, step, _copied(state))

    def check(self) -> None:
        """Report what went wrong in the background; never waits.

        Raises:
            OutputError: The last checkpoint could not be written.
        """
        if self._thread is None:
            return
        with self.runtime.together():
            if self._pending is not None and self._pending.done():
                self.wait()

    def wait(self) -> None:
        """Let the last checkpoint become whole.

        Raises:
            OutputError: It could not be written.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        if self._thread is not None:
            self._thread.shutdown()  # waits
        if self._writing.group is not self.runtime.group:
            dist.destroy_process_group(self._writing.group)
        if error[0] is None:  # or the first error would be hidden by this one
            self.wait()


def _copied(value: Any) -> Any:
    """The same in memory of its own; tensors come to the CPU, which is where they are written."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(part) for part in value)
    return value
