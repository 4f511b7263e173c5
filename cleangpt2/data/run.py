"""A run of `data prepare`: what is written, counted and remembered on the way.

One process does this, block after block, so that no order of events among the processes that
encode can show in the files.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.documents import Count
from cleangpt2.data.encoding import Encoded, Row
from cleangpt2.data.index import SPLITS, Index, SourceCount, write_index
from cleangpt2.data.progress import HASHES, PROGRESS, Progress, Seen
from cleangpt2.data.reading import Part, Position
from cleangpt2.data.removal import remove
from cleangpt2.data.shards import Identity
from cleangpt2.data.sources import Source
from cleangpt2.data.writing import ShardWriter
from cleangpt2.errors import DataError

SAVE_EVERY_S = 2.0
"""Seconds of work that a kill may cost."""
_NAMED = 100  # bad lines that are named; all are counted


class Run:
    """Takes what blocks have become, in their order; `state` is how far that has come."""

    def __init__(
        self,
        folder: Path,
        sources: Sequence[Source],
        identity: Identity,
        config: PrepareConfig,
        state: Progress,
        warn: Callable[[str], object],
    ) -> None:
        self.folder, self.sources, self.identity = folder, sources, identity
        self.config, self.state, self.warn = config, state, warn
        self.writers: dict[str, ShardWriter] = {}
        self.seen: Seen | None = None
        state.counts = state.counts or [SourceCount(s.name, s.size) for s in sources]

    def begin(self) -> None:
        """Open the files, as `state` tells of them."""
        for split in SPLITS:
            self.writers[split] = ShardWriter(
                self.folder, split, self.identity, self.config.shard_tokens,
                self.state.writers.get(split),
            )  # fmt: skip
        if self.config.dedupe:
            self.seen = Seen(self.folder, self.state.hashes)
        self.save()

    def take(self, block: Sequence[Part], encoded: Encoded) -> None:
        """Write what a block has become."""
        for count in encoded.counts:
            self._count(count)
        if encoded.opens:
            self.state.open_split = None
            for split, row in zip(SPLITS, (encoded.train, encoded.validation), strict=True):
                if len(row.starts):
                    self.state.open_split = split
                self._write(split, row)
        elif encoded.lost:
            self.state.open_split = None
        elif self.state.open_split is not None:
            self._write(self.state.open_split, encoded.train)
        last = block[-1]
        self.state.position = Position(last.source, last.end, last.closes)
        if time.monotonic() - self.saved >= SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Make what is done so far count, whatever happens next."""
        for writer in self.writers.values():
            writer.flush()
        if self.seen is not None:
            self.seen.flush()
            self.state.hashes = len(self.seen)
        self.state.writers = {split: writer.state for split, writer in self.writers.items()}
        self.state.save(self.folder)
        self.saved = time.monotonic()

    def finish(self, tokenizer_name: str) -> Index:
        """Finish the last shards and write the index."""
        if not any(count.documents for count in self.state.counts):
            bad = f" ({self.state.bad[0]})" if self.state.bad else ""
            names = ", ".join(source.name for source in self.sources[:5])
            self.close()
            remove(self.folder)
            raise DataError(f"no document in {names}{bad}: give files with text")
        for writer in self.writers.values():
            writer.finish()
        splits = {split: writer.shards for split, writer in self.writers.items()}
        index = Index(
            tokenizer_name, self.identity, asdict(self.config), self.state.counts, splits,
            self.state.bad,
        )  # fmt: skip
        write_index(self.folder, index)
        self.close()
        for name in (PROGRESS, HASHES):
            (self.folder / name).unlink(missing_ok=True)
        return index

    def close(self) -> None:
        """Let go of all files."""
        for writer in self.writers.values():
            writer.close()
        if self.seen is not None:
            self.seen.close()

    def _write(self, split: str, row: Row) -> None:
        if self.seen is not None and len(row.hashes):
            new = np.array([self.seen.is_new(digest.tobytes()) for digest in row.hashes])
            for source in row.sources[~new]:
                self.state.counts[source].duplicates += 1
                self.state.counts[source].documents -= 1
            row = row.keep(new)
        self.writers[split].append(row.ids, row.starts)

    def _count(self, count: Count) -> None:
        """Add up what became of a part; name its bad lines."""
        total = self.state.counts[count.source]
        for line, why in count.named:
            where = f"{total.name}, line {total.lines + line}, {why}"
            if self.config.strict:
                raise DataError(f"{where}; without --strict it would be left out")
            if len(self.state.bad) < _NAMED:
                self.state.bad.append(where)
                self.warn(where)
        for name in ("lines", "documents", "empty", "bad"):
            setattr(total, name, getattr(total, name) + getattr(count, name))
