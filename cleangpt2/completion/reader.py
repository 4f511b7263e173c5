"""Ids to text as they arrive, up to a stop string."""

from collections.abc import Sequence

from cleangpt2.tokenizer import StreamDecoder, Tokenizer


class Reader:
    """Ids to text for one response, holding back what may turn out to be a stop string."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], *, skip: int = 0) -> None:
        """Begin a response.

        Args:
            stops: The text ends before the one that is complete first.
            skip: Bytes at the beginning that are not text: those of a healed prompt.
        """
        self.text = ""
        self.stopped = False
        self._tokenizer = tokenizer
        self._decoder = StreamDecoder(self._unskipped)
        self._stops = stops
        self._skip = skip
        self._held = ""

    def push(self, id: int) -> str:
        """The text that is certain after one more token."""
        return self._release(self._decoder.push(id), final=False)

    def finish(self) -> str:
        """The rest of the text."""
        return "" if self.stopped else self._release(self._decoder.finish(), final=True)

    def _unskipped(self, id: int) -> bytes:
        token = self._tokenizer.token_bytes(id)
        skipped = min(self._skip, len(token))
        self._skip -= skipped
        return token[skipped:]

    def _release(self, new: str, *, final: bool) -> str:
        self._held += new
        # (end, start) of each stop string; the first to be complete, and of those the longest,
        # so that it does not matter where one token ends and the next begins.
        found = [
            (start + len(stop), start)
            for stop in self._stops
            if (start := self._held.find(stop)) >= 0
        ]
        if found:
            self.stopped = True
            certain = min(found)[1]
        else:
            certain = len(self._held) - (0 if final else _overlap(self._held, self._stops))
        released, self._held = self._held[:certain], self._held[certain:]
        self.text += released
        return released


def _overlap(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` with which a stop string begins.

    >>> _overlap("the end. Q", ["Q:", "###"])
    1
    """
    lengths = range(min(len(text), max(map(len, stops), default=0)), 0, -1)
    return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in stops)), 0)
