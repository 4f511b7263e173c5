"""A block of work becomes token ids: what every process of `data prepare` does, in any order.

A pure function of the block, the tokenizer and the settings. No torch in here, so that a
process starts quickly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

import numpy as np

from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.reading import Part, Span
from cleangpt2.texts import BadLineError, parse_line, utf8
from cleangpt2.tokenizer import Tokenizer

HEAD = 1 << 20
"""A document is held out by the hash of its first so many bytes, so that a long one need not be
read to its end first."""
DIGEST = 16
"""Bytes of a hash."""
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


class Row(NamedTuple):
    """Documents one after the other, each begun by the end-of-text token."""

    ids: np.ndarray
    starts: np.ndarray
    """Where in `ids` each begins; empty for what goes on with the document before."""
    hashes: np.ndarray
    """(documents, 16) bytes, where duplicates are looked for."""
    sources: np.ndarray
    """Number of the source of each document, beside `hashes`."""

    def keep(self, documents: np.ndarray) -> "Row":
        """Only the documents for which `documents` is true."""
        if documents.all():
            return self
        lengths = np.diff(self.starts, append=len(self.ids))
        starts = np.cumsum(lengths[documents]) - lengths[documents]
        ids = self.ids[np.repeat(documents, lengths)]
        hashes = self.hashes[documents] if len(self.hashes) else self.hashes
        sources = self.sources[documents] if len(self.sources) else self.sources
        return Row(ids, starts, hashes, sources)


class Encoded(NamedTuple):
    """What is to be written for one block."""

    train: Row
    validation: Row
    counts: list[Count]
    opens: bool
    """Else `train` goes on with the document before, whichever split that is in."""
    lost: bool
    """A piece of a long document could not be read: what follows of it is lost, too."""


class Encoder:
    """Encodes blocks; worth keeping, since its tokenizer remembers words."""

    def __init__(self, tokenizer: Tokenizer, config: PrepareConfig) -> None:
        self.tokenizer, self.config = tokenizer, config
        self.dtype = token_type(tokenizer.vocab_size)
        # A document is held out if its hash, as a number of 64 bits, is below this.
        self.limit = np.uint64(round(config.validation * (1 << 64)))

    def __call__(self, block: Sequence[Part]) -> Encoded:
        """The ids of a block's documents, parted into training and validation."""
        texts: list[bytes] = []
        sources: list[int] = []
        counts = [Count(part.source) for part in block]
        whole = block[0].opens and block[-1].closes  # a piece of a document stands alone
        for part, count in zip(block, counts, strict=True):
            before = len(texts)
            texts += self._texts(part, count, whole)
            sources += [part.source] * (len(texts) - before)
            count.documents += (len(texts) - before) * part.opens
        lost = not whole and not texts
        if not block[0].opens:
            ids, _ = self.tokenizer.encode_flat(texts)
            rest = Row(ids.astype(self.dtype), *_NOTHING)
            return Encoded(rest, Row(rest.ids[:0], *_NOTHING), counts, False, lost)
        row, held_out = self._row(texts, sources, whole)
        return Encoded(row.keep(~held_out), row.keep(held_out), counts, True, lost)

    def _row(self, texts: list[bytes], sources: list[int], whole: bool) -> tuple[Row, np.ndarray]:
        """All documents in one row, and which of them are held out."""
        heads = _hashes([text[:HEAD] for text in texts])
        held_out = heads.view("<u8")[:, 0] < self.limit
        found_again = self.config.dedupe and whole  # of a long document only a piece is here
        ids, lengths = self.tokenizer.encode_flat(texts)
        lengths = lengths + 1  # the end-of-text token before it
        starts = np.cumsum(lengths) - lengths
        row = np.empty(len(ids) + len(texts), self.dtype)
        is_text = np.ones(len(row), bool)
        is_text[starts] = False
        row[is_text] = ids
        row[starts] = self.tokenizer.eos_id
        if not found_again:
            return Row(row, starts, *_NOTHING[1:]), held_out
        return Row(row, starts, _hashes(texts), np.array(sources)), held_out

    def _texts(self, part: Part, count: Count, whole: bool) -> Iterator[bytes]:
        """The documents of a part, less those that hold nothing."""
        content = part.content.read() if isinstance(part.content, Span) else part.content
        if isinstance(content, list):
            texts = _of_rows(content, part.key, count)
        elif part.kind == "jsonl":
            texts = _of_lines(content, part.key or "text", count)
        else:
            texts = self._of_text(content, count)
        for line, text in texts:
            if whole and (not text or text.isspace()):
                count.empty += 1
                continue
            try:
                yield utf8(text)
            except BadLineError as error:
                count.refuse(line, str(error))

    def _of_text(self, content: bytes, count: Count) -> Iterator[tuple[int, str]]:
        """The documents of a text, split at the separator."""
        separator = (self.config.separator or "").encode()
        documents = content.split(separator) if separator else [content]
        line = 1
        for number, document in enumerate(documents):
            try:
                text = document.decode()
            except UnicodeDecodeError as error:
                bad_line = line + document.count(b"\n", 0, error.start)
                count.refuse(bad_line, f"is not UTF-8 ({error.reason})")
            else:
                is_last = number == len(documents) - 1
                if separator and not (is_last and not text):  # nothing stands after the last one
                    text = self._trim(text, is_last)
                    yield line, _unix(text)
                elif not separator:
                    yield line, _unix(text)
            line += document.count(b"\n") + separator.count(b"\n")
        count.lines += line - 1 - separator.count(b"\n")

    def _trim(self, text: str, is_last: bool) -> str:
        """A document as the settings want it at its ends."""
        separator = self.config.separator or ""
        if self.config.keep_separator:
            return text if is_last else text + separator
        # White space that separates is no part of any document, nor are the line breaks beside
        # a separator that stands on a line of its own.
        return text if separator.isspace() else text.strip("\r\n")


_NOTHING = (np.empty(0, np.int64), np.empty((0, DIGEST), np.uint8), np.empty(0, np.int64))


def token_type(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The smallest type that holds every id."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def _of_lines(content: bytes, key: str, count: Count) -> Iterator[tuple[int, str]]:
    """The documents of lines of JSON."""
    try:
        lines: Sequence[str | bytes] = content.decode().split("\n")
    except UnicodeDecodeError:
        lines = content.split(b"\n")  # one of them is to blame
    for number, line in enumerate(lines, start=1):
        if not line or line.isspace():
            continue
        try:
            text = line if isinstance(line, str) else line.decode()
            yield number, parse_line(text, key)
        except UnicodeDecodeError as error:
            count.refuse(number, f"is not UTF-8 ({error.reason})")
        except BadLineError as error:
            count.refuse(number, str(error))
    count.lines += len(lines) - 1


def _of_rows(texts: list, key: str | None, count: Count) -> Iterator[tuple[int, str]]:
    """The documents of a table's rows."""
    for number, text in enumerate(texts, start=1):
        if isinstance(text, str):
            yield number, text
        else:
            count.refuse(number, f"has no text under {key!r}")
    count.lines += len(texts)


def _hashes(contents: Sequence[bytes]) -> np.ndarray:
    digests = b"".join(sha256(content).digest()[:DIGEST] for content in contents)
    return np.frombuffer(digests, np.uint8).reshape(len(contents), DIGEST)


def _unix(text: str) -> str:
    """`text` with the line ends that Python's text files give."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
