"""Bulk encoding and training through gigatoken, where the extra ``fast`` is installed.

The same ids and the same merges, several times faster; ``tests/tokenizer/test_fast.py`` holds it
to that. Two things need care. Engines carry different versions of Unicode and disagree on which of
its newest characters are letters, so a text with a character outside the blocks below goes the
plain way. And gigatoken goes on merging when no pair is left, so a training that may have come
so far is left to ``bpe``.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path

import gigatoken
import numpy as np

from cleangpt2.tokenizer import bpe
from cleangpt2.tokenizer.vocabulary import Vocabulary, format_merges, show_all

# Blocks without a gap, all of them in Unicode for years: European and Semitic scripts,
# Devanagari, punctuation and symbols, Chinese, Japanese, Korean, wide forms, emoji.
_SETTLED = (
    "\u0000-\u0377\u0400-\u052f\u0591-\u05c7\u05d0-\u05ea\u0600-\u070d\u0900-\u0983\u2010-\u2064\u20a0-\u20bf\u2100-\u218b"
    "\u2190-\u2426\u2460-\u2b73\u3000-\u303f\u3041-\u3096\u3099-\u30ff\u3400-\u4dbf\u4e00-\u9fef"
    "\uac00-\ud7a3\ufe00-\ufe19\uff01-\uffbe"
    "\U0001f300-\U0001f6d5\U0001f90d-\U0001f971\U0001f973-\U0001f976\U0001f97a-\U0001f9a2"
)
_UNSETTLED = re.compile(f"[^{_SETTLED}]")
_NEVER_IN_TEXT = b"\xff"  # UTF-8 has no such byte
_END = "\U0010ffff".encode()  # no character and never to be one, so no settled text holds it

MEMORY = 1 << 26
"""Bytes that the words of one encoder may take."""


def is_settled(text: str) -> bool:
    """Whether every engine splits this text alike."""
    return text.isascii() or _UNSETTLED.search(text) is None


class BulkEncoder:
    """Encodes many texts at once, as ordinary text.

    Worth making once and keeping: it remembers the words it has seen, and forgets them all where
    they come to take more than `MEMORY`.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._end_id = vocabulary.size  # nobody else's
        self._definition = _definition(vocabulary, self._end_id)
        self._made: gigatoken.Tokenizer | None = None
        self._text = self._resident = 0
        self._engine(0)

    def encode(
        self, texts: Sequence[str], otherwise: Callable[[str], list[int]]
    ) -> list[list[int]]:
        """The ids of each text; ``otherwise`` encodes those that are not settled."""
        engine = self._engine(sum(map(len, texts)))
        if all(map(str.isascii, texts)):  # most batches, and nothing else is needed for them
            return engine.encode_batch_list(list(texts))
        settled = [is_settled(text) for text in texts]
        bulk = iter(engine.encode_batch_list(list(compress(texts, settled))))
        return [
            next(bulk) if fast else otherwise(text)
            for text, fast in zip(texts, settled, strict=True)
        ]

    def encode_flat(
        self, texts: Sequence[bytes], otherwise: Callable[[str], list[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `encode`, for UTF-8, in one row of uint32 and the length of each text in it.

        One call for all texts, in which no Python number is made of any id: that would take five
        times as long as encoding.
        """
        settled = [text.isascii() or is_settled(text.decode()) for text in texts]
        # What is left out has no tokens, and its place stays.
        kept = [text if fast else b"" for text, fast in zip(texts, settled, strict=True)]
        joined = _END.join([*kept, b""])
        ids = self._engine(len(joined)).encode(joined)
        is_end = ids == self._end_id
        lengths = np.diff(np.flatnonzero(is_end), prepend=-1) - 1
        ids = ids[~is_end]
        if all(settled):
            return ids, lengths
        pieces = np.split(ids, np.cumsum(lengths)[:-1])
        for place in np.flatnonzero(~np.array(settled)):
            pieces[place] = np.array(otherwise(texts[place].decode()), np.uint32)
        return np.concatenate(pieces), np.array([len(piece) for piece in pieces])

    def _engine(self, new_text: int) -> gigatoken.Tokenizer:
        """gigatoken's tokenizer, made anew where it has come to remember too much."""
        used = _resident()
        grown = self._text // 4 if used is None else used - self._resident
        if self._made is None or grown > MEMORY:
            self._made = None  # before the next one is there
            self._made = gigatoken.Tokenizer.from_json(self._definition)
            self._text, self._resident = 0, _resident() or 0
        self._text += new_text
        return self._made


def _definition(vocabulary: Vocabulary, end_id: int) -> str:
    """The vocabulary as a ``tokenizer.json``, with `_END` as a special token."""
    end = {"id": end_id, "content": _END.decode(), "special": True}
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    whole = {
        "model": {
            "type": "BPE",
            "vocab": dict(zip(show_all(vocabulary.ids), vocabulary.ids.values(), strict=True)),
            "merges": format_merges(vocabulary.merges).split("\n")[1:-1],
        },
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "added_tokens": [end | flags],
    }
    return json.dumps(whole, ensure_ascii=False)


def _resident() -> int | None:
    """The bytes of memory that this process has; ``None`` where only Linux would tell."""
    try:
        fields = Path("/proc/self/statm").read_bytes().split()
    except OSError:
        return None
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def train(texts: Sequence[str], n_merges: int) -> list[bpe.Merge] | None:
    """The merges that ``bpe.train`` would learn, or ``None`` where that is not certain."""
    if not all(map(is_settled, texts)):
        return None
    blob = _NEVER_IN_TEXT.join([text.encode() for text in texts])
    with _silenced():
        _, merges = gigatoken.train_bpe(
            blob, 256 + n_merges, [], tie_breaking="raw_token_ids", separator=_NEVER_IN_TEXT
        )
    # While some piece is not one token yet, a pair was left and every merge is a real one.
    tokens = {bytes([byte]) for byte in range(256)} | {left + right for left, right in merges}
    if all(piece.encode() in tokens for text in texts for piece in bpe.split(text)):
        return None
    return merges


@contextmanager
def _silenced() -> Generator[None, None, None]:
    """Send to nowhere what native code prints; it writes to the process's files 1 and 2."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for number in (*kept, nowhere):
            os.close(number)
