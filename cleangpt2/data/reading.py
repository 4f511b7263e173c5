"""From sources to blocks of work, each small enough for memory and large enough to be worth a trip.

Which documents a block holds depends on the sources alone, never on who encodes it. Files that
are not packed travel as a place in the file and are read by the process that encodes them.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

from cleangpt2.data import tables
from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.cutting import LIMIT, PIECE, Piece, cut_lines, cut_text
from cleangpt2.data.sources import STDIN, Kind, Source
from cleangpt2.errors import DataError
from cleangpt2.texts import DAMAGED, open_bytes

_FIRST = 100  # lines that say what the columns are


class Span(NamedTuple):
    """Bytes of a file that is not packed."""

    path: Path
    start: int
    end: int

    def read(self) -> bytes:
        """The bytes, or fewer if the file has shrunk."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            return file.read(self.end - self.start)


class Part(NamedTuple):
    """Whole lines, rows or documents of one source, or a piece of one long document."""

    source: int
    """Number of the source."""
    kind: Kind
    content: bytes | Span | list[Any]
    key: str | None
    """The column of the text."""
    end: int
    """Where reading the source goes on: a byte of the unpacked content, or a row."""
    opens: bool = True
    closes: bool = True
    cost: int = 0
    """Bytes of work, by which parts are gathered into blocks."""
    read: int = 0
    """Bytes of the source that it took, as they lie on the disk."""


class Position(NamedTuple):
    """Where to go on reading."""

    source: int = 0
    offset: int = 0
    opens: bool = True


def check_sources(sources: Sequence[Source], key: str | None) -> None:
    """Find out before any work whether each source says where its text is.

    Raises:
        DataError: One does not, or cannot be read.
        ConfigError: One needs a package that is not installed.
    """
    for source in sources:
        try:
            if source.kind == "jsonl":
                find_key(source, key)
            elif source.kind == "text" and source.path is not None:
                open_bytes(source.path).close()
            elif source.kind != "text":
                tables.check_table(source, key)
        except (OSError, *DAMAGED) as error:
            raise DataError(f"{source.name} cannot be read ({error})") from error


def read_blocks(
    sources: Sequence[Source], config: PrepareConfig, start: Position
) -> Iterator[list[Part]]:
    """The work that is left from `start`: blocks of about a `PIECE`.

    Raises:
        DataError: A source cannot be read.
    """
    block: list[Part] = []
    for part in _parts(sources, config, start):
        whole = part.opens and part.closes
        # A piece of a long document stands alone.
        if block and (not whole or sum(p.cost for p in block) + part.cost > PIECE):
            yield block
            block = []
        block.append(part)
        if not whole:
            yield block
            block = []
    if block:
        yield block


def _parts(sources: Sequence[Source], config: PrepareConfig, start: Position) -> Iterator[Part]:
    for number in range(start.source, len(sources)):
        source = sources[number]
        where = start if number == start.source else Position(number)
        try:
            if source.kind in ("parquet", "hub"):
                yield from _row_parts(source, where, config.key)
            else:
                yield from _byte_parts(source, where, config)
        except (OSError, OverflowError, *DAMAGED) as error:
            raise DataError(f"{source.name} cannot be read to its end ({error})") from error


def _byte_parts(source: Source, start: Position, config: PrepareConfig) -> Iterator[Part]:
    """Parts of a text or of JSON lines."""
    key = find_key(source, config.key) if source.kind == "jsonl" else None
    with closing(_open(source, start.offset)) as file:
        pieces = _pieces(file, source, start, config)
        begin, on_disk = start.offset, 0
        for piece in pieces:
            size = len(piece.content)
            plain = source.path is not None and not source.is_packed
            content = Span(source.path, begin, begin + size) if plain else piece.content
            now = piece.end if plain else _position_on_disk(file)
            yield Part(
                start.source, source.kind, content, key, piece.end,
                piece.opens, piece.closes, cost=size, read=max(0, now - on_disk),
            )  # fmt: skip
            begin, on_disk = piece.end, now


def _pieces(
    file: BufferedIOBase, source: Source, start: Position, config: PrepareConfig
) -> Iterator[Piece]:
    if source.kind == "jsonl":
        return cut_lines(file, start.offset)
    separator = config.separator.encode() if config.separator else None
    return cut_text(file, separator, start.offset, opens=start.opens)


def _row_parts(source: Source, start: Position, key: str | None) -> Iterator[Part]:
    for batch in tables.read_rows(source, key, start.offset):
        cost = sum(len(text) for text in batch.texts if isinstance(text, str))
        yield Part(
            start.source, source.kind, batch.texts, batch.key, batch.end, cost=cost, read=batch.read
        )


def find_key(source: Source, key: str | None) -> str:
    """The column of the text: `key`, or the one that leaves no doubt in the first line.

    Raises:
        DataError: There is none, or more than one.
    """
    if source.path is None:
        return key or tables.TEXT
    with closing(open_bytes(source.path)) as file:
        rows = _first_rows(file)
        first = next(rows, None)
        if first is None:  # what is wrong with the lines is told once they are read
            return key or tables.TEXT
        if key is None:
            columns = [name for name, value in first.items() if isinstance(value, str)]
            return tables.the_text_of(columns, source.name)
        if key not in first and not any(key in row for row in rows):
            raise DataError(f"{source.name} has no column {key!r}, but {', '.join(first)}")
    return key


def _first_rows(file: BufferedIOBase) -> Iterator[dict[str, Any]]:
    """The objects in the first lines of a file, some of which may be damaged."""
    for _ in range(_FIRST):
        row = _parse_row(file.readline(LIMIT))
        if row is not None:
            yield row


def _parse_row(line: bytes) -> dict[str, Any] | None:
    """The object in a line of JSON, if it is one."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _open(source: Source, offset: int) -> Any:
    """The unpacked content from `offset` on."""
    if source.name == STDIN:
        file = sys.stdin.buffer
    else:
        assert source.path is not None  # the hub has rows
        file = open_bytes(source.path)
        if not source.is_packed:
            file.seek(offset)
            return file
    while offset:  # what is packed or piped has to be read again
        skipped = len(file.read(min(offset, PIECE)))
        if not skipped:
            raise DataError(f"{source.name} is shorter than it was; --fresh starts anew")
        offset -= skipped
    return file


def _position_on_disk(file: Any) -> int:
    """How much of a packed file is read; 0 where it does not say."""
    raw = getattr(file, "fileobj", None) or getattr(file, "_fp", None)  # gzip's, bz2's and lzma's
    return raw.tell() if raw is not None else 0
