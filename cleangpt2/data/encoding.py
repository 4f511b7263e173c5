"""A block of work becomes token ids: what every process of `data prepare` does, in any order.

A pure function of the block, the tokenizer and the settings. No torch in here, so that a
process starts quickly.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np

from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.documents import Count, documents_of
from cleangpt2.data.reading import Part
from cleangpt2.tokenizer import Tokenizer

HEAD = 1 << 20
"""A document is held out by the hash of its first so many bytes, so that a long one need not be
read to its end first."""
DIGEST = 16
"""Bytes of a hash."""


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
        counts = [Count(part.source) for part in block]
        whole = block[0].opens and block[-1].closes  # a piece of a document stands alone
        found = [
            documents_of(part, self.config, count, whole=whole)
            for part, count in zip(block, counts, strict=True)
        ]
        texts = [text for part in found for text in part]
        lost = not whole and not texts
        if not block[0].opens:
            ids, _ = self.tokenizer.encode_flat(texts)
            rest = Row(ids.astype(self.dtype), *_NOTHING)
            return Encoded(rest, Row(rest.ids[:0], *_NOTHING), counts, False, lost)
        sources = np.repeat([part.source for part in block], [len(part) for part in found])
        row, held_out = self._row(texts, sources, whole), self._held_out(texts)
        return Encoded(row.keep(~held_out), row.keep(held_out), counts, True, lost)

    def _row(self, texts: list[bytes], sources: np.ndarray, whole: bool) -> Row:
        """All documents in one row."""
        ids, lengths = self.tokenizer.encode_flat(texts)
        lengths = lengths + 1  # the end-of-text token before it
        starts = np.cumsum(lengths) - lengths
        row = np.empty(len(ids) + len(texts), self.dtype)
        is_text = np.ones(len(row), bool)
        is_text[starts] = False
        row[is_text] = ids
        row[starts] = self.tokenizer.eos_id
        if not (self.config.dedupe and whole):  # of a long document only a piece is here
            return Row(row, starts, *_NOTHING[1:])
        return Row(row, starts, _hashes(texts), sources)

    def _held_out(self, texts: list[bytes]) -> np.ndarray:
        """Which documents are for validation: one bool each."""
        if not self.limit:
            return np.zeros(len(texts), bool)
        return _hashes([text[:HEAD] for text in texts]).view("<u8")[:, 0] < self.limit


_NOTHING = (np.empty(0, np.int64), np.empty((0, DIGEST), np.uint8), np.empty(0, np.int64))


def token_type(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The smallest type that holds every id."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def _hashes(contents: Sequence[bytes]) -> np.ndarray:
    digests = b"".join(sha256(content).digest()[:DIGEST] for content in contents)
    return np.frombuffer(digests, np.uint8).reshape(len(contents), DIGEST)
