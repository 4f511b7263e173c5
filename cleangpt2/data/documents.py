"""From a part of a source to its documents, with a count of what holds none.

All in bytes where that is possible: making a ``str`` of every text and bytes of it again would
take as long as encoding it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.reading import Part, Span
from cleangpt2.texts import BadLineError, parse_line, utf8

_NAMED = 100  # bad lines of one part that are named; all are counted


class Bad(NamedTuple):
    """A line, row or document that was left out."""

    line: int
    """In its part, from 1."""
    why: str


@dataclass(slots=True)
class Count:
    """What became of one part."""

    source: int
    lines: int = 0
    documents: int = 0
    empty: int = 0
    bad: int = 0
    named: tuple[Bad, ...] = ()

    def refuse(self, line: int, why: str) -> None:
        """Count a line that holds no document."""
        self.bad += 1
        if len(self.named) < _NAMED:
            self.named += (Bad(line, why),)


def documents_of(part: Part, config: PrepareConfig, count: Count, *, whole: bool) -> list[bytes]:
    """The documents of a part in UTF-8, less those that hold nothing.

    Args:
        count: Is added to.
        whole: Else the part is a piece of a long document, in which white space counts.
    """
    content = part.content.read() if isinstance(part.content, Span) else part.content
    if isinstance(content, list):
        found = _of_rows(content, part.key, count)
    elif part.kind == "jsonl":
        found = _of_lines(content, part.key or "text", count)
    else:
        found = _of_text(content, config, count)
    documents = list(found)
    kept = [text for text in documents if not _is_blank(text)] if whole else documents
    count.empty += len(documents) - len(kept)
    count.documents += len(kept) if part.opens else 0
    return kept


def _of_text(content: bytes, config: PrepareConfig, count: Count) -> Iterator[bytes]:
    """The documents of a text, split at the separator."""
    separator = (config.separator or "").encode()
    documents = content.split(separator) if separator else [content]
    is_closed = bool(separator) and not documents[-1]
    if is_closed:
        documents.pop()  # nothing stands after the last separator
    is_sound, start = _is_utf8(content), 0
    for number, document in enumerate(documents, start=1):
        if is_sound or _is_sound(document, content, start, count):
            ended = is_closed or number < len(documents)
            yield _unix(_trim(document, config, ended=ended))
        start += len(document) + len(separator)
    count.lines += content.count(b"\n")


def _is_sound(document: bytes, content: bytes, start: int, count: Count) -> bool:
    """Whether a document, which begins at `start` of `content`, is UTF-8; counted if not."""
    try:
        document.decode()
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, start + error.start)
        count.refuse(line, f"is not UTF-8 ({error.reason})")
        return False
    return True


def _trim(document: bytes, config: PrepareConfig, *, ended: bool) -> bytes:
    """A document as the settings want it at its ends; `ended`: a separator stood after it."""
    separator = config.separator or ""
    if config.keep_separator:
        return document + separator.encode() if ended else document
    # White space that separates is no part of any document, nor are the line breaks beside
    # a separator that stands on a line of its own.
    return document.strip(b"\r\n") if separator and not separator.isspace() else document


def _of_lines(content: bytes, key: str, count: Count) -> Iterator[bytes]:
    """The documents of lines of JSON."""
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line or line.isspace():
            continue
        try:
            yield utf8(parse_line(line.decode(), key))
        except UnicodeDecodeError as error:
            count.refuse(number, f"is not UTF-8 ({error.reason})")
        except BadLineError as error:
            count.refuse(number, str(error))
    count.lines += len(lines) - 1


def _of_rows(texts: Sequence[Any], key: str | None, count: Count) -> Iterator[bytes]:
    """The documents of a table's rows."""
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            count.refuse(number, f"has no text under {key!r}")
            continue
        try:
            yield utf8(text)
        except BadLineError as error:
            count.refuse(number, str(error))
    count.lines += len(texts)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_blank(text: bytes) -> bool:
    return not text or text.decode().isspace()


def _unix(text: bytes) -> bytes:
    """`text` with the line ends that Python's text files give."""
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text
