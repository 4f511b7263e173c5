"""The tokenizer in daily use: the contract of ``bpe``, with tiktoken inside.

tiktoken gets its vocabulary from us and never downloads one. Where the extra ``fast`` is
installed, many texts at once go through gigatoken. The ids are the same on every way;
``tests/tokenizer/`` holds them to that.
"""

import reprlib
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex

import numpy as np
import tiktoken

from cleangpt2.errors import TokenizerError
from cleangpt2.hub import locate
from cleangpt2.tokenizer import bpe
from cleangpt2.tokenizer.files import read_vocabulary, write_vocabulary
from cleangpt2.tokenizer.given import as_list, known_special, refusal_of
from cleangpt2.tokenizer.learning import fast_module, learn_vocabulary
from cleangpt2.tokenizer.pieces import Piece, place
from cleangpt2.tokenizer.streaming import StreamDecoder
from cleangpt2.tokenizer.vocabulary import END_OF_TEXT, Vocabulary, check_names

if TYPE_CHECKING:
    from cleangpt2.tokenizer.fast import BulkEncoder

# bpe.SPLIT_PATTERN, in the form in which tiktoken need not try again: the same cuts, faster.
_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


class Tokenizer:
    """Text to token ids and back.

    >>> tok = Tokenizer.train(["low low low lower lowest"], vocab_size=261)
    >>> tok.encode("low lower")
    [257, 259, 81]
    >>> tok.decode([257, 259, 81])
    'low lower'
    >>> tok.encode("low<|endoftext|>", allowed_special={"<|endoftext|>"})
    [257, 260]
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._tiktoken = tiktoken.Encoding(
            name="cleangpt2",
            pat_str=_PATTERN,
            mergeable_ranks=dict(vocabulary.ids),
            special_tokens=dict(vocabulary.special),
        )
        self._bulk: BulkEncoder | None = None
        self._bulk_characters = 0
        self.vocab_size = vocabulary.size
        """How many ids there are; a model's ``vocab_size`` may be padded beyond it."""

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "Tokenizer":
        """The tokenizer of a model.

        Args:
            name: A bundled model, a GPT-2 size, a hub id or a folder.

        Raises:
            TokenizerError: It has no tokenizer, a damaged one, or one unlike GPT-2's.
            CleanGPT2Error: There is no such model, or it cannot be downloaded.
        """
        return cls(read_vocabulary(locate(name)))

    @classmethod
    def train(
        cls,
        texts: str | Path | Iterable[str | Path],
        vocab_size: int,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        *,
        progress: Callable[[int], object] | None = None,
    ) -> "Tokenizer":
        """Learn a vocabulary.

        Args:
            texts: The corpus: a ``str`` is a text, a ``Path`` a file for ``read_texts``.
            vocab_size: All ids together: 256 bytes, the merges and the special tokens.
            special_tokens: Get the last ids, in this order.
            progress: Called with the number of merges so far; silent where gigatoken trains.

        Raises:
            TokenizerError: A size that is too small, or larger than the corpus can fill; or an
                argument of another type.
            DataError: A file that cannot be read.
        """
        return cls(learn_vocabulary(texts, vocab_size, special_tokens, progress))

    def save(self, folder: str | Path) -> None:
        """Write ``merges.txt``, ``vocab.json`` and ``tokenizer_config.json``.

        Raises:
            OutputError: The folder cannot be written; it stays as it was.
        """
        write_vocabulary(self.vocabulary, Path(folder).expanduser())

    def add_special_tokens(self, *names: str) -> "Tokenizer":
        """A new tokenizer with these special tokens as well, at the next ids."""
        check_names(names)
        special = dict(self.vocabulary.special)
        for name in names:
            special.setdefault(name, self.vocab_size + len(special) - len(self.special_tokens))
        return Tokenizer(replace(self.vocabulary, special=special))

    # ---- the vocabulary -------------------------------------------------------------------

    @property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens and their ids."""
        return dict(self.vocabulary.special)

    @property
    def eos_id(self) -> int:
        """The id that ends a text.

        Raises:
            TokenizerError: The vocabulary has none.
        """
        return self.vocabulary.eos_id

    @property
    def pad_id(self) -> int | None:
        """The id that fills up a batch, if there is one."""
        return self.vocabulary.pad_id

    def token_bytes(self, id: int) -> bytes:
        """The bytes that one id stands for; they need not be whole characters."""
        return self.decode_bytes([id])

    # ---- text to ids ----------------------------------------------------------------------

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        """The ids of a text.

        Args:
            text: Any text; the text of a special token in it is plain text, so that nobody can
                forge one.
            allowed_special: Names of special tokens that are to become their ids after all.

        Raises:
            TokenizerError: No ``str``, a lone surrogate in it, or a name that is no special token.
        """
        bpe.to_bytes(text)  # tiktoken would replace a lone surrogate without a word
        if not allowed_special:
            return self._tiktoken.encode_ordinary(text)
        return self._tiktoken.encode(
            text,
            allowed_special=known_special(allowed_special, self.vocabulary),
            disallowed_special=(),
        )

    def encode_batch(
        self, texts: Iterable[str], *, allowed_special: Collection[str] = ()
    ) -> list[list[int]]:
        """The ids of many texts: what ``encode`` gives for each, faster."""
        if isinstance(texts, str):
            raise TokenizerError("encode_batch takes a list of texts, not one text; use encode")
        texts = list(texts) if isinstance(texts, Iterable) else [texts]
        if not all(issubclass(kind, str) for kind in set(map(type, texts))):
            raise TokenizerError(
                f"encode_batch takes a list of texts (str), not {reprlib.repr(texts)}"
            )
        bulk = None if allowed_special else self._bulk_for(texts)
        if bulk is None:
            return [self.encode(text, allowed_special=allowed_special) for text in texts]
        return bulk.encode(texts, otherwise=self.encode)

    def encode_flat(self, texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of many texts in one row, and how many of them each text has.

        What ``encode`` gives for each; the fastest way to encode a corpus.

        >>> tok = Tokenizer.train(["low low low lower lowest"], vocab_size=261)
        >>> [row.tolist() for row in tok.encode_flat([b"low", b"", b"low lower"])]
        [[257, 257, 259, 81], [1, 0, 3]]

        Args:
            texts: In UTF-8.

        Returns:
            uint32, (ids of all texts,), and int64, (texts,).
        """
        if texts and (bulk := self._bulk_for(texts)) is not None:
            return bulk.encode_flat(texts, otherwise=self.encode)
        rows = [np.array(self.encode(text.decode()), np.uint32) for text in texts]
        ids = np.concatenate(rows) if rows else np.empty(0, np.uint32)
        return ids, np.array([len(row) for row in rows], np.int64)

    def pieces(self, text: str, *, allowed_special: Collection[str] = ()) -> list[Piece]:
        """The tokens of a text, each with its place in it.

        >>> tok = Tokenizer.train(["low low low lower lowest"], vocab_size=261)
        >>> [(piece.text, piece.start, piece.end) for piece in tok.pieces("low lower")]
        [('low', 0, 3), (' lowe', 3, 8), ('r', 8, 9)]
        """
        ids = self.encode(text, allowed_special=allowed_special)
        return list(place((i, self.token_bytes(i)) for i in ids))

    def one_hot(self, ids: Iterable[SupportsIndex]) -> np.ndarray:
        """Row t is 0 but for a 1 at ``ids[t]``: (T, vocab_size), float32.

        Times an embedding matrix this gives the embeddings, which is what a lookup does faster.
        """
        ids = as_list(ids)
        self.decode_bytes(ids)  # refuses ids out of range
        if bool in map(type, ids):  # numbers to Python, but a mask to numpy
            raise refusal_of(ids, self.vocabulary)
        rows = np.zeros((len(ids), self.vocab_size), np.float32)
        rows[np.arange(len(ids)), ids] = 1
        return rows

    # ---- ids to text ----------------------------------------------------------------------

    def decode_bytes(self, ids: Iterable[SupportsIndex]) -> bytes:
        """The bytes of the ids: of those of a text, exactly the text's.

        Raises:
            TokenizerError: The vocabulary has no such id, or these are no ids.
        """
        ids = as_list(ids)
        try:
            return self._tiktoken.decode_bytes(ids)
        except (KeyError, OverflowError, TypeError):
            raise refusal_of(ids, self.vocabulary) from None

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """The text of the ids; bytes that are no UTF-8 become U+FFFD.

        Raises:
            TokenizerError: The vocabulary has no such id.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def stream_decoder(self) -> StreamDecoder:
        """Turns ids that arrive one at a time into text, in whole characters."""
        return StreamDecoder(self.token_bytes)

    # ---- behind it ------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, special_tokens={self.special_tokens})"

    def __reduce__(self) -> tuple:
        return Tokenizer, (self.vocabulary,)  # engines stay behind when it goes to a new process

    def expect_many(self) -> None:
        """Get ready for more text than a few megabytes, rather than once they have come."""
        self._bulk_characters = sys.maxsize
        self._bulk_for([])

    def _bulk_for(self, texts: Sequence[str] | Sequence[bytes]) -> "BulkEncoder | None":
        """The bulk encoder, if there is one; made once the texts so far are many, then kept."""
        self._bulk_characters += sum(map(len, texts))
        if self._bulk is None and (fast := fast_module(self._bulk_characters)) is not None:
            self._bulk = fast.BulkEncoder(self.vocabulary)
        return self._bulk
