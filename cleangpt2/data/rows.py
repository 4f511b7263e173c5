"""Rows of a table: JSON lines, JSON, CSV, Parquet, hub data sets and plain texts; packed or not.

Fine-tuning sets are small beside corpora, so they are read whole and in one process. A row that
cannot be read is one bad row; a file that cannot be read is an error.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from cleangpt2.data import tables
from cleangpt2.data.sources import HUB, Source, parse_hub_name
from cleangpt2.errors import DataError
from cleangpt2.texts import DAMAGED, JSON_LINES, open_bytes, unpacked_suffix

LARGEST_JSON = 1 << 30
"""Bytes of a JSON file, which has to be in memory whole; JSON lines may be longer."""

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_TEXTS = (".txt", ".text", ".md")
_KNOWN = (*JSON_LINES, ".json", *_SEPARATORS, ".parquet", *_TEXTS)
_ROWS = 1024  # of a Parquet file in memory at a time
_LONGEST_FIELD = 1 << 27  # characters; the csv module refuses more than 2 ** 17 unless told


class Row(NamedTuple):
    """A row of a table, or why there is none."""

    place: str
    """Where in its file it is, such as "line 7"."""
    values: dict[str, Any]
    """Empty for a bad row."""
    reason: str | None = None
    """Why it is bad."""


def find_tables(names: Sequence[str | Path]) -> list[str]:
    """The files and hub data sets behind `names`; those of a folder in the order of their names.

    Raises:
        DataError: There is nothing, or a file of a kind that holds no rows.
    """
    found = [table for name in names for table in _expand(str(name))]
    if not found:
        raise DataError("no file of examples was named; give one, or a folder of them")
    once: dict[str, str] = {}
    for table in found:
        real = table if table.startswith(HUB) else str(Path(table).expanduser().resolve())
        if real in once:
            raise DataError(
                f"{table} is named twice (as {once[real]}, too): its rows would count twice; "
                "name it once"
            )
        once[real] = table
    return found


def read_rows(name: str) -> Iterator[Row]:
    """The rows of one file or hub data set.

    Raises:
        DataError: It cannot be read.
        ConfigError: It needs a package that is not installed.
    """
    path = Path(name).expanduser()
    try:
        if name.startswith(HUB):
            yield from _numbered("row", tables.hub_rows(Source(name, "hub")))
        elif path.suffix.lower() == ".parquet":
            yield from _numbered("row", _parquet(Source(name, "parquet", path)))
        else:
            with closing(open_bytes(path)) as file:
                yield from _of_file(file, unpacked_suffix(path), name)
    except (OSError, UnicodeDecodeError, *DAMAGED) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{name} cannot be read ({why})") from None


def _expand(name: str) -> list[str]:
    if name.startswith(HUB):
        parse_hub_name(name)
        return [name]
    path = Path(name).expanduser()
    if path.is_dir():
        files = [f for f in path.rglob("*") if unpacked_suffix(f) in _KNOWN and f.is_file()]
        inside = [f for f in files if not _is_hidden(f.relative_to(path))]
        if not inside:
            raise DataError(f"the folder {name} holds no file that ends in {', '.join(_KNOWN)}")
        return sorted(file.as_posix() for file in inside)
    if not path.is_file():
        raise DataError(
            f"no file {name}; give examples in one that ends in {', '.join(_KNOWN)}, a folder of "
            "them, or a hub data set as hf:owner/name"
        )
    if unpacked_suffix(path) not in _KNOWN:
        raise DataError(
            f"{name} is of no kind that holds examples; known are {', '.join(_KNOWN)}, "
            "packed (.gz, .bz2, .xz, .zst) or not"
        )
    return [name]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _of_file(file: io.BufferedIOBase, suffix: str, name: str) -> Iterator[Row]:
    if suffix in JSON_LINES:
        return _json_lines(file)
    if suffix == ".json":
        return _json(file, name)
    if suffix in _SEPARATORS:
        return _csv(file, _SEPARATORS[suffix], name)
    return iter([Row("the whole file", {"text": file.read().decode("utf-8-sig")})])


def _json_lines(file: io.BufferedIOBase) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        line = line.removeprefix(b"\xef\xbb\xbf")  # a mark that Windows programs put first
        if line.strip():
            yield _row(f"line {number}", *_parsed(line))


def _json(file: io.BufferedIOBase, name: str) -> Iterator[Row]:
    """A list of objects, an object that holds one, or, under a wrong name, JSON lines."""
    content = file.read(LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        raise DataError(
            f"{name} has more than {LARGEST_JSON:,} bytes, which have to be in memory whole; "
            "write it as JSON lines (.jsonl), one object a line"
        )
    value, reason = _parsed(content.removeprefix(b"\xef\xbb\xbf"))
    if isinstance(value, list):
        return _numbered("row", value)
    if reason and not content.lstrip().startswith(b"["):
        return _json_lines(io.BytesIO(content))
    if isinstance(value, dict):
        lists = [held for held in value.values() if isinstance(held, list)]
        is_wrapper = len(lists) == len(value) == 1
        return _numbered("row", lists[0] if is_wrapper else [value])
    raise DataError(f"{name} {reason or 'holds no rows'}; give a list of objects, or JSON lines")


def _csv(file: io.BufferedIOBase, separator: str, name: str) -> Iterator[Row]:
    stream: Any = file
    limit = csv.field_size_limit(_LONGEST_FIELD)
    with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, delimiter=separator, strict=True)
        try:
            for number, values in enumerate(reader, start=1):
                fits = None not in values and None not in values.values()
                reason = None if fits else "has more or fewer fields than the header"
                yield Row(f"row {number}", values if fits else {}, reason)
        except csv.Error as error:
            raise DataError(
                f"{name}, line {reader.reader.line_num}, cannot be read as CSV ({error}); text "
                "with a comma, a quote or a line break has to stand between quotes"
            ) from None
        finally:
            csv.field_size_limit(limit)


def _parquet(source: Source) -> Iterator[dict[str, Any]]:
    with tables.open_parquet(source) as file:
        for batch in file.iter_batches(_ROWS):
            yield from batch.to_pylist()


def _numbered(unit: str, values: Any) -> Iterator[Row]:
    return (_row(f"{unit} {number}", value) for number, value in enumerate(values, start=1))


def _row(place: str, value: Any, reason: str | None = None) -> Row:
    if reason is None and not isinstance(value, dict):
        reason = "is no object with named columns"
    return Row(place, {}, reason) if reason else Row(place, value)


def _parsed(text: bytes) -> tuple[Any, str | None]:
    """The value in a text of JSON, or why there is none."""
    try:
        return json.loads(text), None
    except UnicodeDecodeError as error:
        return None, f"is not UTF-8 ({error.reason})"
    except json.JSONDecodeError as error:
        return None, f"is not JSON ({error.msg} at character {error.pos})"
    except (RecursionError, ValueError):  # the latter: a number of thousands of digits
        return None, "is JSON nested too deeply, or with a number too long"
