"""Files that are written whole or not at all, and texts of strangers, read up to a limit."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cleangpt2.errors import OutputError

LARGEST_TEXT = 1 << 26
"""Bytes of a JSON or vocabulary file; the largest known have a quarter of it."""


def read_text(path: Path) -> str:
    """The text of a small file, which may be anybody's.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no UTF-8, or longer than `LARGEST_TEXT`.
    """
    if (size := path.stat().st_size) > LARGEST_TEXT:
        raise ValueError(f"it has {size:,} bytes, and at most {LARGEST_TEXT:,} are read")
    return path.read_text(encoding="utf-8")


@contextmanager
def written_aside(folder: Path) -> Generator[Path, None, None]:
    """A scratch folder whose files move into `folder` when the block ends, or vanish.

    Other files of the folder stay, and a folder that was made for nothing is removed again.

    Raises:
        OutputError: The folder cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".saving-", dir=folder) as scratch:
            yield Path(scratch)
            for path in Path(scratch).iterdir():
                with path.open("r+b") as file:
                    os.fsync(file.fileno())  # or a power cut could leave a name without content
            for path in sorted(Path(scratch).iterdir()):
                path.replace(folder / path.name)
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}; "
            "choose a folder that you may write to, with room enough"
        ) from error
    finally:
        for path in made:  # what we made and did not fill
            try:
                path.rmdir()
            except OSError:
                break


def check_writable(folder: Path) -> None:
    """Refuse, before long work, a folder that could not be made or written after it.

    Raises:
        OutputError: It is a file, or the nearest folder that exists cannot be written.
    """
    folder = folder.expanduser().absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise OutputError(
            f"cannot write to {folder}: {nearest} is no folder that you may write to; "
            "choose another"
        )
