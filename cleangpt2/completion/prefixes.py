"""The tokens of a vocabulary by the bytes they begin with."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping


class Prefixes:
    """Tokens in the order of their bytes, where those with a common beginning are neighbours.

    Two bisections find them, so that one look costs microseconds among 50,257 tokens.

    >>> prefixes = Prefixes({b"t": 0, b"ti": 1, b"time": 2, b"me": 3})
    >>> prefixes.starting_with(b"ti"), prefixes.beginning(b"tim")
    ([1, 2], [0, 1])
    """

    def __init__(self, ids: Mapping[bytes, int]) -> None:
        self._id = ids
        self.tokens = sorted(ids)
        self.ids = [ids[token] for token in self.tokens]
        self.longest = max(map(len, ids))

    def starting_with(self, start: bytes) -> list[int]:
        """The ids of the tokens that begin with these bytes, `start` itself included."""
        return self.ids[self._span(start)]

    def beginning(self, text: bytes) -> list[int]:
        """The ids of the tokens with which these bytes begin, `text` itself left out."""
        return [self._id[text[:n]] for n in range(1, len(text)) if text[:n] in self._id]

    def holding(self, part: bytes, start: bytes) -> list[int]:
        """The ids of the tokens that begin with `start` and hold `part` behind it.

        >>> Prefixes({b"at": 0, b"tat": 1, b"tattoo": 2}).holding(b"t", start=b"ta")
        [1, 2]
        """
        span = self._span(start)
        rests = zip(self.tokens[span], self.ids[span], strict=True)
        return [id for token, id in rests if part in token[len(start) :]]

    def can_go_on(self, start: bytes) -> bool:
        """Whether a token begins with these bytes and is longer."""
        return any(len(token) > len(start) for token in self.tokens[self._span(start)][:2])

    def _span(self, start: bytes) -> slice:
        first = bisect_left(self.tokens, start)
        return slice(
            first, bisect_right(self.tokens, start, lo=first, key=lambda t: t[: len(start)])
        )
