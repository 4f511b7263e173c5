"""Examples to learn from: rows of any known format as conversations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from cleangpt2.data.record_formats import Fields, Format, recognise
from cleangpt2.data.rows import Row, find_tables, read_rows
from cleangpt2.errors import DataError
from cleangpt2.texts import BadLineError
from cleangpt2.tokenizer.chat.messages import Message

_LOOKED_AT = 100  # rows that say which format a file has


@dataclass(frozen=True, slots=True)
class Record:
    """One example."""

    messages: tuple[Message, ...]
    """A conversation that ends in an answer; a plain text is an answer to nothing."""
    where: str
    """File and line, for errors: ``"data.jsonl, line 7"``."""


@dataclass(frozen=True, slots=True)
class Table:
    """What was found in one file."""

    name: str
    format: Format
    columns: tuple[str, ...]
    """The columns that are read, under the file's own names."""
    n_records: int
    n_bad: int

    def __str__(self) -> str:
        bad = f", {self.n_bad:,} bad ones left out" if self.n_bad else ""
        return f"{self.format.name}: {', '.join(self.columns)}; {self.n_records:,} rows{bad}"


@dataclass(frozen=True, slots=True)
class Records:
    """The examples of some files, in their order."""

    records: tuple[Record, ...]
    tables: tuple[Table, ...]
    """What was recognised, file by file; ``str(table)`` says it aloud."""
    bad: tuple[str, ...]
    """Each row that was left out: file, line and reason."""

    @property
    def is_raw(self) -> bool:
        """Whether all texts are laid out already and want the template "plain"."""
        return all(table.format.is_raw for table in self.tables)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)


def read_records(
    names: str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str] | None = None,
    strict: bool = False,
    warn: Callable[[str], object] | None = None,
) -> Records:
    """The examples of files, folders and hub data sets.

    Args:
        names: JSON lines, JSON, CSV, Parquet or text files, packed or not; folders of them;
            ``hf:owner/name``. Each file may have a format of its own.
        columns: What the files call the columns of a known format:
            ``{"prompt": "question", "completion": "answer"}``.
        strict: Refuse a file with a bad row, instead of leaving it out.
        warn: Called with each bad row: file, line and reason.

    Raises:
        DataError: A file cannot be read or has no known format, there is no example, or, in
            `strict`, there is a bad row.
        ConfigError: `columns` names no column of a format, or a package is missing.
    """
    columns = columns or {}
    records: list[Record] = []
    tables: list[Table] = []
    bad: list[str] = []
    for name in find_tables([names] if isinstance(names, str | Path) else names):
        rows = read_rows(name)
        first = list(islice(rows, _LOOKED_AT))
        format = _format(first, columns, name)
        n_records, n_bad = len(records), len(bad)
        for record in _records(chain(first, rows), format, columns, name):
            if isinstance(record, Record):
                records.append(record)
                continue
            bad.append(record)
            if warn is not None:
                warn(record)
        seen = _columns(format, columns, first)
        tables.append(Table(name, format, seen, len(records) - n_records, len(bad) - n_bad))
    if bad and (strict or not records):
        raise DataError(
            f"{len(bad):,} of {len(bad) + len(records):,} rows are bad, the first: {bad[0]}; "
            f"mend {'them, or leave them out (not strict)' if records else 'them'}"
        )
    return Records(tuple(records), tuple(tables), tuple(bad))


def _format(first: Sequence[Row], columns: Mapping[str, str], name: str) -> Format:
    """The format of a file that begins with these rows."""
    if not first:
        raise DataError(f"{name} is empty: give a file with examples, or leave it out")
    good = [row.values for row in first if row.reason is None]
    if not good:
        raise DataError(f"{name}, {first[0].place}, {first[0].reason}; is it another kind of file?")
    return recognise(good, columns, name)


def _records(
    rows: Iterator[Row], format: Format, columns: Mapping[str, str], name: str
) -> Iterator[Record | str]:
    """The record of each row, or file, line and reason of a bad one."""
    for row in rows:
        where = f"{name}, {row.place}"
        try:
            if row.reason is not None:
                raise BadLineError(row.reason)
            yield Record(format.read(Fields(row.values, columns)), where)
        except BadLineError as error:
            yield f"{where}, {error}"


def _columns(format: Format, columns: Mapping[str, str], rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns that are read, under the file's own names; optional ones if there are any."""
    held = {column for row in rows for column in row.values}
    own = (columns.get(name, name) for name in format.columns)
    return tuple(column for column in own if column in held)
