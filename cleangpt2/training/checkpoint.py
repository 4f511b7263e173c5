"""Checkpoints that are either whole or not there.

A checkpoint is written beside its place, flushed to the disk and renamed; the checksums of its
files are stored with it, as ``sha256sum --check`` reads them. The newest one that passes its check
wins, so a run that died while writing goes on from the one before. See ``writer.py`` for writing
them while training goes on, and ``sharded.py`` for those that several processes write together.
"""

import hashlib
import os
import pickle
import re
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cleangpt2.errors import CheckpointError, OutputError
from cleangpt2.training import sharded
from cleangpt2.training.runtime import ALONE, Runtime

STATE, CHECKSUM = "state.pt", "sha256"


def save(
    folder: Path,
    step: int,
    state: dict[str, Any],
    *,
    keep: int = 2,
    spare: int | None = None,
    runtime: Runtime = ALONE,
) -> None:
    """Write ``folder/step-N`` and remove older checkpoints than the newest `keep`.

    Args:
        state: In a run that is not sharded that of the main process is written.
        spare: The step of a checkpoint that stays however old it is.
        runtime: All its processes call this together, and see the same folder.

    Raises:
        OutputError: The folder cannot be written; older checkpoints stay.
    """
    final, partial = _place(folder, step), folder / f".partial-{step:07d}"
    with runtime.together(), _removed_if_it_fails(partial, final, runtime):
        if runtime.is_main:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
    with runtime.together(), _removed_if_it_fails(partial, final, runtime):
        if sharded.is_sharded(state):
            state = sharded.write(partial, state, runtime)
        if runtime.is_main:
            _write(partial / STATE, state)
    names = runtime.broadcast([path.name for path in partial.iterdir()] if runtime.is_main else [])
    sums = _digests(partial, names, runtime)
    with runtime.together(), _removed_if_it_fails(partial, final, runtime):
        if runtime.is_main:
            _finish(partial, final, sums)
            # A later one can only be damaged, or the run would have begun after it.
            for old in [there for there in _steps(folder) if there <= step][:-keep]:
                if old != spare:
                    shutil.rmtree(_place(folder, old))


def newest(folder: Path, *, runtime: Runtime = ALONE, mesh: Any = None) -> dict[str, Any] | None:
    """The state of the newest checkpoint that is intact, or None; see `load`."""
    steps = runtime.broadcast(_steps(folder))
    states = (load(folder, step, runtime=runtime, mesh=mesh) for step in reversed(steps))
    return next((state for state in states if state is not None), None)


def load(
    folder: Path, step: int, *, runtime: Runtime = ALONE, mesh: Any = None
) -> dict[str, Any] | None:
    """The state of one checkpoint; None if it is damaged or not there.

    Args:
        runtime: All its processes call this together; each checks a share of the files.
        mesh: Over whose processes to spread the tensors (``Replica.mesh``). None gives whole ones
            on the CPU, whatever processes wrote them.

    Raises:
        CheckpointError: Not all processes see it, or it holds something else than a state.
    """
    place = _place(folder, step)
    sums = runtime.broadcast(_sums(place))
    with runtime.together():
        if sums and not place.is_dir():
            raise CheckpointError(
                f"process {runtime.rank} of {runtime.world_size} does not see {place}, and the "
                "main process does: put the run folder where all machines of the run see it"
            )
    if not sums or _digests(place, sums, runtime) != sums:
        return None
    with runtime.together():
        state = _read(place, mesh, is_sharded=len(sums) > 1)
    return state if mesh is None else sharded.spread(state, mesh)


def _read(place: Path, mesh: Any, *, is_sharded: bool) -> dict[str, Any]:
    try:
        state = torch.load(place / STATE, weights_only=True, map_location="cpu")
        return sharded.read(place, state, mesh) if is_sharded else state
    except (OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"checkpoint {place} is none that this program has written, or cannot be read "
            f"({str(error).splitlines()[0]}): remove it to go on from the one before"
        ) from error


def _write(path: Path, state: dict[str, Any]) -> None:
    with open(path, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def _finish(partial: Path, final: Path, sums: dict[str, str]) -> None:
    """Put the checksums beside the files, and all of it in its place."""
    text = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    (partial / CHECKSUM).write_text(text, encoding="utf-8")
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)


@contextmanager
def _removed_if_it_fails(
    partial: Path, final: Path, runtime: Runtime
) -> Generator[None, None, None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # on a full disk torch.save raises a RuntimeError
        if runtime.is_main:
            shutil.rmtree(partial, ignore_errors=True)
        cause = error if isinstance(error, OSError) else error.__context__
        reason = getattr(cause, "strerror", None) or str(error).splitlines()[0]
        raise OutputError(
            f"checkpoint {final} cannot be written: {reason}; "
            "make room and run it again to go on from the one before"
        ) from error


def _place(folder: Path, step: int) -> Path:
    return folder / f"step-{step:07d}"


def _steps(folder: Path) -> list[int]:
    names = [path.name for path in folder.glob("step-*")]
    return sorted(int(name[5:]) for name in names if re.fullmatch(r"step-\d+", name))


def _sums(place: Path) -> dict[str, str]:
    """Name and checksum of each file; empty if there are none."""
    try:
        words = (place / CHECKSUM).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return {}
    if len(words) == 1:  # as the first versions wrote it
        words.append(STATE)
    return dict(zip(words[1::2], words[::2], strict=False))


def _digests(place: Path, names: Iterable[str], runtime: Runtime) -> dict[str, str]:
    """Checksums of the files that can be read; each process reads its share of them."""
    mine = {}
    for name in sorted(names)[runtime.rank :: runtime.world_size]:
        try:
            with open(place / name, "rb") as file:
                mine[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            continue
    return {name: digest for share in runtime.gather(mine) for name, digest in share.items()}
