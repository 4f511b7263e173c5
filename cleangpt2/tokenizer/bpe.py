"""Byte pair encoding, the readable way: train, encode, decode.

The tokenizer of GPT-2 (Radford et al., 2019, section 2.2): the subword algorithm of Sennrich et
al. (2016), started from the 256 bytes instead of from characters, so that no text is ever out
of vocabulary. ``Tokenizer`` does the same work through tiktoken;
``tests/tokenizer/test_bpe.py`` holds the two equal, but for the few characters that only the
newer Unicode tables of the ``regex`` module know to be letters.

Training counts neighbours and glues the most frequent pair, again and again:

>>> text = "low low low lower lowest"
>>> split(text)  # text is cut into pieces first; a merge never crosses a cut
['low', ' low', ' low', ' lower', ' lowest']
>>> merges = train([text], 5)
>>> merges  # "lo" and "ow" both occur 5 times: the smaller pair of ids goes first
[(b'l', b'o'), (b'lo', b'w'), (b' ', b'low'), (b' low', b'e'), (b's', b't')]

Encoding applies the merges to new text in the order in which they were learned:

>>> encoder = BytePairEncoder(merges)
>>> ids = encoder.encode("low lower")
>>> [encoder.tokens[i] for i in ids]
[b'low', b' lowe', b'r']
>>> ids  # the merges are numbered from 256 on, after the bytes
[257, 259, 81]
>>> encoder.decode(ids)
'low lower'
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

import regex

from cleangpt2.errors import TokenizerError

# Contractions, then words, numbers and punctuation, each with the space before it, then runs of
# white space (less the last one, when a word follows: that one belongs to the word).
SPLIT_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
_SPLIT = regex.compile(SPLIT_PATTERN)

Pair = tuple[int, int]
Merge = tuple[bytes, bytes]


def split(text: str) -> list[str]:
    """Cut a text into the pieces inside which merges happen; joined, they give it back.

    >>> split("Hello, I'm 42  years old. ")
    ['Hello', ',', ' I', "'m", ' 42', ' ', ' years', ' old', '.', ' ']
    """
    return _SPLIT.findall(text)


def to_bytes(text: str) -> bytes:
    """The UTF-8 bytes of a text.

    Raises:
        TokenizerError: It is no ``str``, or holds a lone surrogate: half a character, which has
            no bytes.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {error.start} of the text is the lone surrogate "
            f"{text[error.start]!a}, half a character that UTF-8 cannot write; "
            "read the text with errors='replace' or drop it"
        ) from None
    except AttributeError:
        raise TokenizerError(f"a text must be a str, not {type(text).__name__}") from None


def bytes_to_printable() -> dict[int, str]:
    """The character that stands for each byte in ``merges.txt`` and ``vocab.json``.

    Bytes that Latin-1 prints stand for themselves, the others (controls, space, ...) take the
    characters from U+0100 on. The order of this table is the order of GPT-2's ids 0 to 255.

    >>> table = bytes_to_printable()
    >>> table[ord("a")], table[ord(" ")], list(table).index(ord("a"))
    ('a', 'Ġ', 64)
    """
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}


def merge_pair(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    """Replace every ``pair`` in ``ids`` by ``new``, from left to right.

    >>> merge_pair([1, 1, 1, 2, 1, 1], (1, 1), 9)
    [9, 1, 2, 9]
    """
    merged, i = [], 0
    while i < len(ids):
        if ids[i] == pair[0] and i + 1 < len(ids) and ids[i + 1] == pair[1]:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def train(
    texts: Iterable[str], n_merges: int, *, progress: Callable[[int], object] | None = None
) -> list[Merge]:
    """Learn up to ``n_merges`` merges, most frequent pair first.

    A step recounts only the pieces that hold the merged pair. A count on the heap may be too
    high by now (a pair loses occurrences when its neighbours merge) but never too low, since only
    pairs with the new token gain any: an entry that comes out stale goes back corrected.

    Args:
        texts: The corpus; a merge never crosses from one text into the next.
        n_merges: How many to learn; fewer come back when every piece has become one token.
        progress: Called with the number of merges learned so far, after each.

    Returns:
        Pairs of byte strings in the order learned. Of equally frequent pairs the smallest
        goes first, where a byte counts as its value and merge number k as 256 + k.
    """
    pieces: Counter[str] = Counter()
    for text in texts:
        to_bytes(text)  # refuses lone surrogates
        pieces.update(split(text))
    words = [list(piece.encode()) for piece in pieces]
    repeats = list(pieces.values())

    counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for w, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += repeats[w]
            where[pair].add(w)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapify(heap)

    tokens = [bytes([byte]) for byte in range(256)]
    merges: list[Merge] = []
    while heap and len(merges) < n_merges:
        count, pair = heappop(heap)
        if -count != counts[pair]:
            if counts[pair]:
                heappush(heap, (-counts[pair], pair))
            continue

        new, fresh = len(tokens), set()
        for w in where.pop(pair):
            before, after = words[w], merge_pair(words[w], pair, new)
            for old in pairwise(before):
                counts[old] -= repeats[w]
            for now in pairwise(after):
                counts[now] += repeats[w]
                if new in now:
                    fresh.add(now)
                    where[now].add(w)
            words[w] = after
        for now in fresh:
            heappush(heap, (-counts[now], now))

        tokens.append(tokens[pair[0]] + tokens[pair[1]])
        merges.append((tokens[pair[0]], tokens[pair[1]]))
        if progress is not None:
            progress(len(merges))
    return merges


class BytePairEncoder:
    """Text to ids and back, by applying the merges in the order they were learned.

    Ids 0 to 255 are the bytes in the order of ``bytes_to_printable``, the merges follow.
    """

    def __init__(self, merges: Iterable[Merge]) -> None:
        self.tokens = [bytes([byte]) for byte in bytes_to_printable()]
        self._byte_ids = {token[0]: i for i, token in enumerate(self.tokens)}
        self._merged: dict[Pair, int] = {}
        ids = {token: i for i, token in enumerate(self.tokens)}
        for left, right in merges:
            self._merged[ids[left], ids[right]] = ids[left + right] = len(self.tokens)
            self.tokens.append(left + right)

    def encode(self, text: str) -> list[int]:
        """The ids of a text; everything in it is ordinary text.

        Raises:
            TokenizerError: The text holds a lone surrogate.
        """
        to_bytes(text)
        return [i for piece in split(text) for i in self._encode_piece(piece)]

    def _encode_piece(self, piece: str) -> list[int]:
        """Merge until no two neighbours have a merge, always the earliest learned one first.

        A pass costs the length of the piece, and there are as many passes as *different* merges
        that apply: a dozen for 100,000 equal letters.
        """
        ids = [self._byte_ids[byte] for byte in piece.encode()]
        while len(ids) > 1:
            never = len(self.tokens)
            pair = min(pairwise(ids), key=lambda pair: self._merged.get(pair, never))
            if pair not in self._merged:
                break
            ids = merge_pair(ids, pair, self._merged[pair])
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids: exactly those of the text that was encoded."""
        return b"".join(self.tokens[i] for i in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")
