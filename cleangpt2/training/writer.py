"""Checkpoints written while training goes on."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from cleangpt2.training import checkpoint


class Writer:
    """Writes one checkpoint at a time, at once or in the background.

    with Writer(folder, keep=2, background=True) as writer:
        for step in steps:
            writer.check()
            ...
            writer.save(step, state)
    """

    def __init__(self, folder: Path, *, keep: int, background: bool) -> None:
        self.folder, self.keep = folder, keep
        self._thread = ThreadPoolExecutor(1, "checkpoint") if background else None
        self._pending: Future[None] | None = None

    def save(self, step: int, state: dict[str, Any], *, spare: int | None = None) -> None:
        """Write the state; in the background a copy of it, once the last one is written.

        Raises:
            OutputError: This one, or in the background the last one, could not be written.
        """
        if self._thread is None:
            checkpoint.save(self.folder, step, state, keep=self.keep, spare=spare)
            return
        self.wait()
        self._pending = self._thread.submit(
            checkpoint.save, self.folder, step, _copied(state), keep=self.keep, spare=spare
        )

    def check(self) -> None:
        """Report what went wrong in the background; never waits.

        Raises:
            OutputError: The last checkpoint could not be written.
        """
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
