"""Checkpoints that are either whole or not there.

A checkpoint is written beside its place, flushed to the disk and renamed; its checksum is stored
with it. The newest one that passes its check wins, so a run that died while writing goes on from
the one before. See ``writer.py`` for writing them while training goes on.
"""

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from cleangpt2.errors import OutputError

STATE, CHECKSUM = "state.pt", "sha256"


def save(
    folder: Path, step: int, state: dict[str, Any], *, keep: int = 2, spare: int | None = None
) -> None:
    """Write ``folder/step-N`` and remove older checkpoints than the newest `keep`.

    Args:
        spare: The step of a checkpoint that stays however old it is.

    Raises:
        OutputError: The folder cannot be written; older checkpoints stay.
    """
    final, partial = _place(folder, step), folder / f".partial-{step:07d}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with open(partial / STATE, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        (partial / CHECKSUM).write_text(_digest(partial / STATE), encoding="ascii")
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
    except (OSError, RuntimeError) as error:  # on a full disk torch.save raises a RuntimeError
        shutil.rmtree(partial, ignore_errors=True)
        cause = error if isinstance(error, OSError) else error.__context__
        reason = getattr(cause, "strerror", None) or str(error).splitlines()[0]
        raise OutputError(
            f"checkpoint {final} cannot be written: {reason}; "
            "make room and run it again to go on from the one before"
        ) from error
    # A later one can only be damaged, or the run would have begun after it.
    for old in [there for there in _steps(folder) if there <= step][:-keep]:
        if old != spare:
            shutil.rmtree(_place(folder, old))


def newest(folder: Path) -> dict[str, Any] | None:
    """The state of the newest checkpoint that is intact, or None."""
    states = (load(folder, step) for step in reversed(_steps(folder)))
    return next((state for state in states if state is not None), None)


def load(folder: Path, step: int) -> dict[str, Any] | None:
    """The state of one checkpoint, its tensors on the CPU; None if it is damaged or not there."""
    place = _place(folder, step)
    try:
        if (place / CHECKSUM).read_text(encoding="ascii") == _digest(place / STATE):
            return torch.load(place / STATE, weights_only=True, map_location="cpu")
    except OSError:
        pass
    return None


def _place(folder: Path, step: int) -> Path:
    return folder / f"step-{step:07d}"


def _steps(folder: Path) -> list[int]:
    names = [path.name for path in folder.glob("step-*")]
    return sorted(int(name[5:]) for name in names if re.fullmatch(r"step-\d+", name))


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
