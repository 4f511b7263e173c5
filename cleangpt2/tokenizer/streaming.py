"""Text from ids that arrive one at a time, in whole characters.

A token may end inside a character: "é" is two bytes and an emoji four, and a merge may join any
of them. Its first bytes wait here until the rest has come.
"""

import codecs
from collections.abc import Callable


class StreamDecoder:
    r"""Ids in, text out; joined, the parts are what ``decode`` gives for all ids at once.

    >>> bytes_of = [b"caf", b"\xc3", b"\xa9!"].__getitem__
    >>> decoder = StreamDecoder(bytes_of)
    >>> [decoder.push(0), decoder.push(1), decoder.push(2), decoder.finish()]
    ['caf', '', 'é!', '']
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id: int) -> str:
        """The text that this id completes, which may be empty.

        Raises:
            TokenizerError: The vocabulary has no such id.
        """
        return self._decoder.decode(self._token_bytes(id))

    def finish(self) -> str:
        """What is left: U+FFFD if the ids stopped inside a character. Then start afresh."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
