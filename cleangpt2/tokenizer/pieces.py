"""The tokens of a text and where in it they stand."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of a text."""

    id: int
    bytes: bytes
    start: int
    """Where its first character starts in the text, counted in characters."""
    end: int
    """Where its last character ends; tokens that share a character overlap there."""

    @property
    def text(self) -> str:
        """Its text; U+FFFD stands for a part of a character."""
        return self.bytes.decode("utf-8", errors="replace")

    @property
    def is_whole(self) -> bool:
        """Whether it starts and ends between two characters."""
        return "\ufffd" not in self.text or self.text.encode() == self.bytes

    @property
    def spelt(self) -> str:
        """Its text; if it starts or ends inside a character, its bytes.

        >>> [piece.spelt for piece in place([(7, b"caf"), (8, bytes([0xC3]))])]
        ['caf', '<C3>']
        """
        return self.text if self.is_whole else "".join(map(_byte, self.bytes))


def place(tokens: Iterable[tuple[int, bytes]]) -> Iterator[Piece]:
    """The pieces of a text from its ids and their bytes.

    >>> for piece in place([(7, b"caf"), (8, bytes([0xC3])), (9, bytes([0xA9]) + b"!")]):
    ...     print(piece.id, piece.start, piece.end, piece.is_whole)
    7 0 3 True
    8 3 4 False
    9 3 5 False
    """
    begun = 0  # characters of which at least the first byte has come
    for i, token in tokens:
        start = begun - _continues(token[0])
        begun += sum(not _continues(byte) for byte in token)
        yield Piece(i, token, start, begun)


def _byte(byte: int) -> str:
    """An ASCII character as it is, part of any other as its number."""
    return chr(byte) if byte < 0x80 else f"<{byte:02X}>"


def _continues(byte: int) -> bool:
    """Whether a byte of UTF-8 belongs to a character that an earlier byte began."""
    return byte & 0b1100_0000 == 0b1000_0000
