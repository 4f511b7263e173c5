"""Shards as they are written: aside, flushed to the disk, then renamed."""

import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cleangpt2.data.shards import (
    HEADER_BYTES,
    Identity,
    ShardInfo,
    header,
    sha256,
    shard_name,
    shard_paths,
)
from cleangpt2.errors import DataError

PARTIAL = ".partial"


class ShardWriter:
    """One split: a row of tokens, cut into shards of equal length.

    `state` is all that is needed to take it up again, even if more has been written since.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        identity: Identity,
        shard_tokens: int,
        state: dict[str, Any] | None = None,
    ) -> None:
        """Begin, or take up what `state` tells of.

        Raises:
            DataError: What was written so far is gone.
        """
        self.folder, self.split = folder, split
        self.identity, self.shard_tokens = identity, shard_tokens
        state = state or {"shards": [], "tokens": 0, "documents": 0}
        self.shards = [ShardInfo(**info) for info in state["shards"]]
        self.tokens, self.documents = state["tokens"], state["documents"]  # of the open shard
        self._files: tuple[BinaryIO, BinaryIO] | None = None
        if self.tokens:
            self._files = self._reopen()

    @property
    def state(self) -> dict[str, Any]:
        """As `__init__` takes it."""
        shards = [asdict(info) for info in self.shards]
        return {"shards": shards, "tokens": self.tokens, "documents": self.documents}

    def append(self, ids: np.ndarray, starts: np.ndarray) -> None:
        """Write tokens, and where in them documents begin."""
        while len(ids):
            room = self.shard_tokens - self.tokens
            tokens, places = self._files = self._files or self._create()
            here = starts[starts < room]
            tokens.write(ids[:room].astype(self.identity.dtype, copy=False).data)
            places.write((here + self.tokens).astype("<u4").data)
            self.tokens += min(room, len(ids))
            self.documents += len(here)
            ids, starts = ids[room:], starts[len(here) :] - room
            if self.tokens == self.shard_tokens:
                self.finish()

    def flush(self) -> None:
        """Bring what is written to the disk, so that `state` can be counted on."""
        for file in self._files or ():
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Give the open shard its header and its name, if there is one."""
        if self._files is None:
            return
        tokens, places = self._files
        tokens.flush()
        places.flush()
        info = ShardInfo(
            shard_name(self.split, len(self.shards)),
            self.tokens,
            self.documents,
            sha256(tokens, HEADER_BYTES),
            sha256(places, 0),
        )
        tokens.seek(0)
        tokens.write(header(info, self.identity))
        self.flush()
        self.close()
        for partial, final in self._paths():
            os.replace(partial, final)
        self.shards.append(info)
        self.tokens = self.documents = 0

    def close(self) -> None:
        """Let go of the files and leave them as they are; what `state` counts on was flushed."""
        for file in self._files or ():
            with suppress(OSError):  # a disk that is full takes no last bytes
                file.close()
        self._files = None

    def _create(self) -> tuple[BinaryIO, BinaryIO]:
        (tokens, _), (places, _) = self._paths()
        files = open(tokens, "w+b"), open(places, "w+b")  # noqa: SIM115 (until `close`)
        files[0].write(bytes(HEADER_BYTES))  # room for what is known at the end
        return files

    def _reopen(self) -> tuple[BinaryIO, BinaryIO]:
        """The files of the open shard, as long as they were when `state` was taken."""
        lengths = (HEADER_BYTES + self.tokens * self.identity.dtype.itemsize, 4 * self.documents)
        for (partial, final), length in zip(self._paths(), lengths, strict=True):
            if final.exists() and not partial.exists():
                os.replace(final, partial)  # it was finished after the state was taken
            if not partial.exists() or partial.stat().st_size < length:
                raise DataError(
                    f"{partial} is gone or shorter than it was: start anew with --fresh"
                )
            os.truncate(partial, length)
        # In "ab" mode the header could not be written; in "r+b" the end has to be sought.
        (tokens, _), (places, _) = self._paths()
        files = open(tokens, "r+b"), open(places, "r+b")  # noqa: SIM115 (until `close`)
        for file in files:
            file.seek(0, os.SEEK_END)
        return files

    def _paths(self) -> tuple[tuple[Path, Path], ...]:
        """Partial and final name of both files of the open shard."""
        finals = shard_paths(self.folder, shard_name(self.split, len(self.shards)))
        return tuple((path.with_name(f".{path.name}{PARTIAL}"), path) for path in finals)
