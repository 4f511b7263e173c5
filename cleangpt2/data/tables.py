"""Rows of Parquet files and of hub data sets, a batch at a time."""

import importlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from cleangpt2.data.sources import HUB, Source, parse_hub_name
from cleangpt2.errors import ConfigError, DataError

TEXT = "text"
_ROWS = 64  # few, for a row may be a whole book


class Batch(NamedTuple):
    """The texts of consecutive rows; what is no text is for the worker to complain about."""

    texts: list[Any]
    key: str
    end: int
    """Number of the row after the last."""
    read: int
    """Bytes of the file, in proportion."""


def read_rows(source: Source, key: str | None, start: int = 0) -> Iterator[Batch]:
    """The text column of a table, from row `start` on.

    Raises:
        ConfigError: The extra ``data`` is not installed.
        DataError: No such column, or the table cannot be read.
    """
    return (_hub if source.kind == "hub" else _parquet)(source, key, start)


def the_text_of(columns: Sequence[str], where: str) -> str:
    """The column that must be meant: ``text``, or the only one that holds text.

    Raises:
        DataError: None or several might be.
    """
    if TEXT in columns:
        return TEXT
    if len(columns) == 1:
        return columns[0]
    held = f"columns {', '.join(columns)}" if columns else "no column of text"
    raise DataError(f"{where} has {held}: name the one to read with --key")


def check_table(source: Source, key: str | None) -> None:
    """Find out before any work whether a table can be read; the hub is not asked yet.

    Raises:
        ConfigError: The extra ``data`` is not installed.
        DataError: No such column, or no table.
    """
    if source.kind == "hub":
        _needs("datasets", f"{source.name} is a data set of the hub")
    else:
        with open_parquet(source) as file:
            _column(file.schema_arrow, source, key)


def _column(schema: Any, source: Source, key: str | None) -> str:
    """The name of the text column in a Parquet file."""
    types = importlib.import_module("pyarrow").types
    if key is not None and key not in schema.names:
        raise DataError(f"{source.name} has no column {key!r}, but {', '.join(schema.names)}")
    texts = [f.name for f in schema if types.is_string(f.type) or types.is_large_string(f.type)]
    return key or the_text_of(texts, source.name)


@contextmanager
def open_parquet(source: Source) -> Generator[Any, None, None]:
    """A Parquet file, as pyarrow's ``ParquetFile``.

    Raises:
        ConfigError: The extra ``data`` is not installed.
        DataError: It is no Parquet file, or reading it fails.
    """
    parquet = _needs("pyarrow.parquet", f"{source.name} is a Parquet file")
    arrow = importlib.import_module("pyarrow")
    try:
        with parquet.ParquetFile(source.path) as file:
            yield file
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{source.name} cannot be read as Parquet ({_line(error)})") from None


def _parquet(source: Source, key: str | None, start: int) -> Iterator[Batch]:
    with open_parquet(source) as file:
        key = _column(file.schema_arrow, source, key)
        groups, first = _groups_from(file, start)
        total = max(1, file.metadata.num_rows)
        # Batches of a fixed size that begin with a row group, wherever reading begins.
        for group in groups:
            row = first
            for batch in file.iter_batches(_ROWS, row_groups=[group], columns=[key]):
                row += len(batch)
                if row > start:
                    read = source.size * len(batch) // total
                    yield Batch(batch.column(0).to_pylist(), key, row, read)
            first = row


def _groups_from(file: Any, start: int) -> tuple[range, int]:
    """The row groups from the one that holds row `start` on, and the first row of that one."""
    first = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first + rows > start:
            return range(group, file.num_row_groups), first
        first += rows
    return range(0), first


def _hub(source: Source, key: str | None, start: int) -> Iterator[Batch]:
    texts: list[Any] = []
    end = start
    for row in hub_rows(source, start):
        if key is None:
            strings = [column for column, value in row.items() if isinstance(value, str)]
            key = the_text_of(strings, source.name)
        elif end == start and key not in row:
            raise DataError(f"{source.name} has no column {key!r}, but {', '.join(row)}")
        texts.append(row.get(key))
        end += 1
        if len(texts) == _ROWS:
            yield Batch(texts, key, end, 0)
            texts = []
    if texts:
        yield Batch(texts, key or TEXT, end, 0)


def hub_rows(source: Source, start: int = 0) -> Iterator[dict[str, Any]]:
    """The rows of a data set of the hub as they arrive, from row `start` on.

    Raises:
        ConfigError: The extra ``data`` is not installed.
        DataError: There is no such data set, or the connection breaks.
    """
    datasets = _needs("datasets", f"{source.name} is a data set of the hub")
    name = parse_hub_name(source.name)
    try:
        rows = datasets.load_dataset(name.repo, name.config, split=name.split, streaming=True)
        yield from rows.skip(start) if start else rows
    except Exception as error:  # the hub's client raises those of its HTTP library, too
        raise DataError(
            f"{source.name} cannot be read from the hub ({_line(error)}): check the name "
            f"{source.name.removeprefix(HUB)!r} and the connection, then run the command again"
        ) from error


def _needs(module: str, what: str) -> Any:
    """A module of the extra ``data``."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"{what}, which needs the extra data: pip install 'cleangpt2[data]'"
        ) from None


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
