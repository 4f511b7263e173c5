"""What `data prepare` has written into a folder, taken out again."""

import re
import shutil
from pathlib import Path

from cleangpt2.data.index import INDEX, SPLITS, TOKENIZER
from cleangpt2.data.progress import HASHES, PROGRESS
from cleangpt2.data.writing import PARTIAL

_NAME = rf"({'|'.join(SPLITS)})-\d{{5,}}\.(bin|starts)"
_SHARD_FILE = re.compile(rf"{_NAME}|\.{_NAME}{re.escape(PARTIAL)}")


def remove(folder: Path) -> None:
    """Delete what `prepare` has written in `folder`, and nothing else there."""
    if not any((folder / name).exists() for name in (INDEX, PROGRESS)):
        return
    remove_scratch(folder)
    for file in folder.iterdir():
        if _SHARD_FILE.fullmatch(file.name):
            file.unlink()
    shutil.rmtree(folder / TOKENIZER, ignore_errors=True)
    for name in (HASHES, PROGRESS, INDEX):
        (folder / name).unlink(missing_ok=True)


def remove_scratch(folder: Path) -> None:
    """Delete what a kill has left of ``files.written_aside``."""
    for scratch in folder.glob(".saving-*"):
        shutil.rmtree(scratch, ignore_errors=True)
