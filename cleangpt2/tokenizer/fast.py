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

import awkward
import gigatoken
import numpy as np

from cleangpt2.tokenizer import bpe
from cleangpt2.tokenizer.vocabulary import Vocabulary, show

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


def is_settled(text: str) -> bool:
    """Whether every engine splits this text alike."""
    return text.isascii() or _UNSETTLED.search(text) is None


class BulkEncoder:
    """Encodes many texts at once, as ordinary text.

    Worth making once and keeping: it remembers the words it has seen.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        model = {
            "type": "BPE",
            "vocab": {show(token): i for token, i in vocabulary.ids.items()},
            "merges": [[show(left), show(right)] for left, right in vocabulary.merges],
        }
        splitter = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        whole = {"model": model, "pre_tokenizer": splitter, "added_tokens": []}
        self._tokenizer = gigatoken.Tokenizer.from_json(json.dumps(whole))

    def encode(
        self, texts: Sequence[str], otherwise: Callable[[str], list[int]]
    ) -> list[list[int]]:
        """The ids of each text; ``otherwise`` encodes those that are not settled."""
        if all(map(str.isascii, texts)):  # most batches, and nothing else is needed for them
            return self._tokenizer.encode_batch_list(list(texts))
        settled = [is_settled(text) for text in texts]
        bulk = iter(self._tokenizer.encode_batch_list(list(compress(texts, settled))))
        return [
            next(bulk) if fast else otherwise(text)
            for text, fast in zip(texts, settled, strict=True)
        ]

    def encode_flat(
        self, texts: Sequence[bytes], otherwise: Callable[[str], list[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `encode`, for UTF-8, in one row of uint32 and the length of each text in it.

        No Python number is made of any id, which takes five times as long as encoding.
        """
        settled = [text.isascii() or is_settled(text.decode()) for text in texts]
        # What is left out has no tokens, and its place stays.
        kept = [text if fast else b"" for text, fast in zip(texts, settled, strict=True)]
        rows = self._tokenizer.encode_batch(kept)
        ids, lengths = awkward.to_numpy(awkward.flatten(rows)), awkward.to_numpy(awkward.num(rows))
        if all(settled):
            return ids, lengths
        pieces = np.split(ids, np.cumsum(lengths)[:-1])
        for place in np.flatnonzero(~np.array(settled)):
            pieces[place] = np.array(otherwise(texts[place].decode()), np.uint32)
        return np.concatenate(pieces), np.array([len(piece) for piece in pieces])


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
