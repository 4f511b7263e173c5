"""Texts from files: plain text, JSON lines, and either of them gzipped."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from cleangpt2.errors import DataError


def read_texts(path: str | Path, *, key: str = "text") -> Iterator[str]:
    """Yield the documents of one file.

    A ``.jsonl`` or ``.jsonl.gz`` file holds one JSON object a line, its document under ``key``;
    any other file is one document.

    Raises:
        DataError: The file cannot be read as UTF-8, or a line is no object with that key, or
            has half a character there.
    """
    path = Path(path)
    suffixes = path.suffixes
    open_text = gzip.open if suffixes[-1:] == [".gz"] else open
    try:
        with open_text(path, "rt", encoding="utf-8") as file:
            if ".jsonl" not in suffixes[-2:]:
                yield file.read()
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _document(line, key, f"{path}, line {number},")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}); "
            "give a text or .jsonl file, gzipped or not"
        ) from None
    except (UnicodeDecodeError, EOFError, zlib.error) as error:
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


def _document(line: str, key: str, where: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON ({error.msg})") from None
    if not isinstance(row, dict) or not isinstance(row.get(key), str):
        raise DataError(f"{where} has no text under {key!r}")
    try:
        row[key].encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where} holds the lone surrogate {row[key][error.start]!r}, half a character that "
            "UTF-8 cannot write; mend the line or leave it out"
        ) from None
    return row[key]
