"""From text to shards: read, encode in parallel, write in order.

The files that come out are a pure function of the sources, the vocabulary and the settings: how
many processes encode, and how often the run was killed and taken up again, leaves no trace.
"""

import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.encoding import Count, Encoded, Row
from cleangpt2.data.index import (
    INDEX,
    SPLITS,
    TOKENIZER,
    Index,
    SourceCount,
    read_index,
    write_index,
)
from cleangpt2.data.progress import (
    HASHES,
    PROGRESS,
    Progress,
    Seen,
    check_same,
    job_of,
    load_progress,
)
from cleangpt2.data.reading import Part, Position, check_sources, read_blocks
from cleangpt2.data.shards import Identity
from cleangpt2.data.sources import Source, find_sources
from cleangpt2.data.workers import encode_all
from cleangpt2.data.writing import PARTIAL, ShardWriter
from cleangpt2.errors import DataError, OutputError
from cleangpt2.files import check_writable, written_aside
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.tokenizer.files import vocabulary_files

DEFAULTS = PrepareConfig()
SAVE_EVERY_S = 2.0
"""Seconds of work that a kill may cost."""
_SHARD_FILE = re.compile(
    rf"({'|'.join(SPLITS)})-\d{{5,}}\.(bin|starts)|\.({'|'.join(SPLITS)})-\d{{5,}}\.(bin|starts)"
    + re.escape(PARTIAL)
)
_NAMED = 100  # bad lines that are named; all are counted


def prepare(
    names: Sequence[str],
    tokenizer: Tokenizer,
    folder: str | Path,
    config: PrepareConfig = DEFAULTS,
    *,
    tokenizer_name: str = "",
    workers: int = 1,
    fresh: bool = False,
    progress: Callable[[int], object] | None = None,
    warn: Callable[[str], object] | None = None,
) -> Index:
    """Make a folder of shards, or go on where it stopped; see `data/corpus.py` for reading it.

    Args:
        names: Files, folders, ``-`` for standard input, ``hf:owner/name[:config][/split]``.
        tokenizer_name: What ``index.json`` calls the tokenizer.
        workers: Processes that encode; more than one needs a main module that can be imported.
        fresh: Remove what an earlier run left in `folder`.
        progress: Called with the bytes of the sources that are done, block by block.
        warn: Called with each bad line that is left out.

    Returns:
        The folder's index; at once if the folder is finished.

    Raises:
        DataError: A source cannot be read, there is no document, or, in `strict`, a bad line.
        ConfigError: The folder was begun with other sources or settings.
        OutputError: The folder cannot be written.
    """
    folder = Path(folder).expanduser()
    identity = Identity.of(tokenizer)
    sources = find_sources(names, config.stdin)
    check_sources(sources, config.key)
    check_writable(folder)
    if fresh:
        remove(folder)
    job = job_of(sources, identity, config)
    if (done := read_index(folder)) is not None:
        check_same(_job_of_index(done), job, folder)
        return done
    state = load_progress(folder)
    if state is not None:
        check_same(state.job, job, folder)
    run = _Run(folder, sources, identity, config, state or Progress(job), warn or (lambda _: None))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_scratch(folder)
        _save_vocabulary(tokenizer, folder / TOKENIZER)
        run.begin()
        blocks = read_blocks(sources, config, run.state.position)
        if progress is not None:
            progress(_bytes_before(sources, run.state.position))
        for block, encoded in encode_all(blocks, tokenizer, config, workers):
            run.take(block, encoded)
            if progress is not None:
                progress(sum(part.read for part in block))
        index = run.finish(tokenizer_name)
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}; make room or mend it, then the "
            "same command goes on where it stopped"
        ) from error
    finally:
        run.close()
    return index


def _save_vocabulary(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the vocabulary beside the shards, for whoever reads them."""
    with written_aside(folder) as scratch:
        for name, content in vocabulary_files(tokenizer.vocabulary, folder).items():
            (scratch / name).write_text(content, encoding="utf-8", newline="\n")


def remove(folder: Path) -> None:
    """Delete what `prepare` has written in `folder`, and nothing else there."""
    if not any((folder / name).exists() for name in (INDEX, PROGRESS)):
        return
    _remove_scratch(folder)
    for file in folder.iterdir():
        if _SHARD_FILE.fullmatch(file.name):
            file.unlink()
    shutil.rmtree(folder / TOKENIZER, ignore_errors=True)
    for name in (HASHES, PROGRESS, INDEX):
        (folder / name).unlink(missing_ok=True)


def _remove_scratch(folder: Path) -> None:
    """Delete what a kill has left of ``files.written_aside``."""
    for scratch in folder.glob(".saving-*"):
        shutil.rmtree(scratch, ignore_errors=True)


class _Run:
    """What is written, counted and remembered on the way."""

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


def _job_of_index(index: Index) -> dict:
    return {
        "tokenizer": asdict(index.identity),
        "settings": index.settings,
        "sources": [[source.name, source.bytes] for source in index.sources],
    }


def _bytes_before(sources: Sequence[Source], position: Position) -> int:
    """How much of the sources is done, for the progress bar; what is packed counts once read."""
    whole = sum(source.size for source in sources[: position.source])
    here = sources[position.source]
    plain = here.path is not None and not here.is_packed and here.kind != "parquet"
    return whole + (position.offset if plain else 0)
