"""How far a folder has been prepared: enough to go on after a kill at any moment.

``.progress.json`` is replaced as a whole every few seconds, after what it counts on has reached
the disk. What was written later is cut off again, and the same bytes take its place.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.index import SourceCount
from cleangpt2.data.reading import Position
from cleangpt2.data.shards import Identity
from cleangpt2.data.sources import Source
from cleangpt2.errors import ConfigError, DataError
from cleangpt2.files import written_aside

PROGRESS = ".progress.json"
HASHES = ".hashes"


@dataclass(slots=True)
class Progress:
    """What a run has done so far."""

    job: dict[str, Any]
    """What it does; see `job_of`."""
    position: Position = Position()
    counts: list[SourceCount] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    open_split: str | None = None
    """Where the document at `position` goes on; ``None``: nowhere."""
    writers: dict[str, Any] = field(default_factory=dict)
    hashes: int = 0
    """Of documents seen, in ``.hashes``."""

    def save(self, folder: Path) -> None:
        """Replace the folder's ``.progress.json``."""
        with written_aside(folder) as scratch:
            (scratch / PROGRESS).write_text(json.dumps(asdict(self)), encoding="utf-8")


def load_progress(folder: Path) -> Progress | None:
    """Where a folder stands; ``None`` where nothing was begun.

    Raises:
        DataError: The file is damaged.
    """
    path = folder / PROGRESS
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["position"] = Position(*content["position"])
        content["counts"] = [SourceCount(**count) for count in content["counts"]]
        return Progress(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}): start anew with --fresh") from None


def job_of(sources: Sequence[Source], identity: Identity, config: PrepareConfig) -> dict[str, Any]:
    """All that decides which bytes are written."""
    return {
        "tokenizer": asdict(identity),
        "settings": asdict(config),
        "sources": [[source.name, source.size] for source in sources],
        "modified": [[source.name, source.modified_ns] for source in sources],
    }


def check_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with another job, and say in what it differs.

    Args:
        before: What was begun in `folder`; a part that it lacks may be anything.
        now: What was asked for.

    Raises:
        ConfigError: They differ.
    """
    changed = []
    for part, values in now.items():
        if part not in before or before[part] == values:
            continue
        if isinstance(values, dict):
            changed += [
                f"{name} was {before[part].get(name)!r}, now {value!r}"
                for name, value in values.items()
                if before[part].get(name) != value
            ]
        else:
            changed += _changed_sources(dict(before[part]), dict(values), part)
    if changed:
        raise ConfigError(
            f"{folder} was begun with other data or settings ({'; '.join(changed[:5])}): give "
            "another folder, the old command to go on, or --fresh to start anew"
        )


def _changed_sources(before: dict[str, int], now: dict[str, int], part: str) -> list[str]:
    """In words, what is new, missing, changed or in another order."""
    changed = [f"{name} is new" for name in now if name not in before]
    changed += [f"{name} is missing" for name in before if name not in now]
    what = "bytes" if part == "sources" else "ns of its last change"
    changed += [
        f"{name} had {before[name]} {what}, now {value}"
        for name, value in now.items()
        if before.get(name, value) != value
    ]
    return changed or [f"the {len(now)} files are in another order"]


class Seen:
    """The hashes of all documents so far, in memory and beside the shards."""

    def __init__(self, folder: Path, hashes: int) -> None:
        """Take up the first `hashes` that were written.

        Raises:
            DataError: They are gone.
        """
        path = folder / HASHES
        if hashes == 0:
            path.write_bytes(b"")
        content = path.read_bytes()[: hashes * 16] if path.is_file() else b""
        if len(content) < hashes * 16:
            raise DataError(f"{path} is gone or shorter than it was: start anew with --fresh")
        self._seen = {content[i : i + 16] for i in range(0, len(content), 16)}
        self._file = open(path, "r+b")  # noqa: SIM115 (until `close`)
        self._file.truncate(len(content))
        self._file.seek(len(content))

    def __len__(self) -> int:
        return len(self._seen)

    def is_new(self, digest: bytes) -> bool:
        """Whether a document is the first with its hash; from now on it is not."""
        if digest in self._seen:
            return False
        self._seen.add(digest)
        self._file.write(digest)
        return True

    def flush(self) -> None:
        """Bring the hashes to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file; what the progress counts on was flushed."""
        with suppress(OSError):
            self._file.close()
