"""Checkpoints that are either whole or not there.

A checkpoint is written beside its place, flushed to the disk and renamed; its checksum is stored
with it. The newest one that passes its check wins, so a run that died while writing goes on from
the one before.
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


def save(folder: Path, step: int, state: dict[str, Any], *, keep: int = 2) -> None:
    """Write ``folder/step-N`` and remove all but the newest `keep` checkpoints.

    Raises:
        OutputError: The folder cannot be written; older checkpoints stay.
    """
    final, partial = folder / f"step-{step:07d}", folder / f".partial-{step:07d}"
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
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OutputError(f"checkpoint {final} cannot be written: {error.strerror}") from error
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(folder / f"step-{old:07d}")


def newest(folder: Path) -> dict[str, Any] | None:
    """The state of the newest checkpoint that is intact, or None."""
    for step in reversed(_steps(folder)):
        place = folder / f"step-{step:07d}"
        try:
            if (place / CHECKSUM).read_text(encoding="ascii") == _digest(place / STATE):
                return torch.load(place / STATE, weights_only=True)
        except OSError:
            continue
    return None


def _steps(folder: Path) -> list[int]:
    names = [path.name for path in folder.glob("step-*")]
    return sorted(int(name[5:]) for name in names if re.fullmatch(r"step-\d+", name))


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
