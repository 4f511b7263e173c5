"""Texts from files: plain text and JSON lines, packed or not."""

import bz2
import gzip
import importlib
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cleangpt2.errors import ConfigError, DataError

PACKED = (".gz", ".bz2", ".xz", ".zst")
JSON_LINES = (".jsonl", ".ndjson")

# What reading a damaged packed file can raise, beside OSError.
DAMAGED = (EOFError, zlib.error, lzma.LZMAError)


class BadLineError(ValueError):
    """Why a line holds no document; the caller knows which line of which file it is."""


def read_texts(path: str | Path, *, key: str = "text") -> Iterator[str]:
    """Yield the documents of one file.

    A ``.jsonl`` file holds one JSON object a line, its document under ``key``; any other file is
    one document. Either may be packed (``.gz``, ``.bz2``, ``.xz``, ``.zst``).

    Raises:
        DataError: The file cannot be read as UTF-8, or a line is no object with that key, or
            has half a character there.
    """
    path = Path(path)
    try:
        stream: Any = open_bytes(path)
        with io.TextIOWrapper(stream, encoding="utf-8") as file:
            if not is_json_lines(path):
                yield file.read()
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _located(line, key, path, number)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}); "
            "give a text or .jsonl file, packed or not"
        ) from None
    except (UnicodeDecodeError, *DAMAGED) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error})") from None


def read_all(paths: Sequence[str | Path], *, key: str = "text") -> list[str]:
    """The documents of all `paths`, less the empty ones.

    Raises:
        DataError: A file cannot be read, or there is no document at all.
    """
    texts = [text for path in paths for text in read_texts(path, key=key) if text.strip()]
    if not texts:
        raise DataError(f"no text in {', '.join(map(str, paths)) or 'an empty list of files'}")
    return texts


def open_bytes(path: Path) -> io.BufferedIOBase:
    """The content of a file, unpacked as it is read.

    Raises:
        OSError: It cannot be opened.
        ConfigError: Its packing needs a package that is not installed.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path)
    if suffix == ".bz2":
        return bz2.open(path)
    if suffix == ".xz":
        return lzma.open(path)
    if suffix == ".zst":
        return io.BufferedReader(_open_zstd(path))
    return open(path, "rb")


def is_json_lines(path: Path) -> bool:
    """Whether a file's name says that it holds one JSON object a line."""
    return unpacked_suffix(path) in JSON_LINES


def unpacked_suffix(path: Path) -> str:
    """What a file's name ends with, less the packing.

    >>> unpacked_suffix(Path("stories.v2.JSONL.gz"))
    '.jsonl'
    """
    name = Path(path.stem) if path.suffix.lower() in PACKED else path
    return name.suffix.lower()


def parse_line(line: str, key: str) -> str:
    """The document in one line of JSON.

    Raises:
        BadLineError: It is no JSON object, or has no text under ``key``.
    """
    try:
        row, end = _parse(line)
        if line[end:].strip():
            json.loads(line)  # raises: more than one value
    except json.JSONDecodeError:
        row = _parse_with_space(line)
    except RecursionError:
        raise BadLineError("is JSON nested too deeply") from None
    text = row.get(key) if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise BadLineError(f"has no text under {key!r}")
    return text


def utf8(text: str) -> bytes:
    """The bytes of a document.

    Raises:
        BadLineError: JSON's escapes left half a character in it.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadLineError(
            f"holds the lone surrogate {text[error.start]!r}, half a character that "
            "UTF-8 cannot write; mend the line or leave it out"
        ) from None


_parse = json.JSONDecoder().raw_decode  # `loads` takes half as long again for what follows


def _parse_with_space(line: str) -> Any:
    """As `_parse`, with white space before the value allowed, or the reason why it fails."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise BadLineError(f"is not JSON ({error.msg})") from None


def _located(line: str, key: str, path: Path, number: int) -> str:
    try:
        text = parse_line(line, key)
        utf8(text)
        return text
    except BadLineError as error:
        raise DataError(f"{path}, line {number}, {error}") from None


def _open_zstd(path: Path) -> Any:
    """The unpacked stream of a ``.zst`` file; Python can read one itself from 3.14 on."""
    for name in ("compression.zstd", "zstandard"):
        try:
            return importlib.import_module(name).open(path, "rb")
        except ImportError:
            continue
    raise ConfigError(
        f"{path} needs Python 3.14 or the package zstandard (pip install zstandard), "
        "or unpack it with `zstd -d`"
    )
