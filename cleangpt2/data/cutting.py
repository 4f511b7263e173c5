"""Where a stream of text may be cut into pieces that are encoded apart.

At a separator, at the end of a line of JSON, or inside a long document before a space that
follows something else: there the tokenizer cuts, too (``bpe.SPLIT_PATTERN`` never matches across
from a character to the white space after it, and looks ahead from white space alone). So the
ids of the pieces are those of the whole.
"""

import re
from collections.abc import Iterator
from io import BufferedIOBase
from typing import NamedTuple

PIECE = 1 << 22
"""Bytes of a piece; the last line or document in it may end later."""

LIMIT = 1 << 28
"""Bytes that are held in memory at most where there is no place to cut."""

# Python's \s holds all that is white space to any tokenizer.
_BEFORE_SPACE = re.compile(r"\S(?=[ \n])")
_WINDOW = 1 << 12


class Piece(NamedTuple):
    """Consecutive bytes of a stream."""

    content: bytes
    end: int
    """Where reading goes on after it."""
    opens: bool = True
    """Whether a document begins here; else the piece goes on with the one before."""
    closes: bool = True
    """Whether its last document ends here."""


def cut_lines(file: BufferedIOBase, position: int = 0) -> Iterator[Piece]:
    """Whole lines, about a `PIECE` at a time.

    Raises:
        OverflowError: A line is longer than the `LIMIT`.
    """
    while content := file.read(PIECE):
        content += (rest := file.readline(LIMIT))
        _check_limit(len(rest), "a line")
        position += len(content)
        yield Piece(content, position)


def cut_text(
    file: BufferedIOBase, separator: bytes | None, position: int = 0, *, opens: bool = True
) -> Iterator[Piece]:
    """Whole documents where they fit into a `PIECE`, else pieces of one document.

    Where a long document is cut depends on the document alone: it begins its piece.

    Args:
        separator: Stands between documents and stays with the one before it; ``None``: there is
            one document.
        position: Of the file in its stream.
        opens: Whether a document begins at `position`.

    Raises:
        OverflowError: More than the `LIMIT` without a place to cut.
    """
    buffer, at_end = b"", False
    while True:
        # One separator more than the piece, so that one on the border is seen whole.
        wanted = PIECE + len(separator or b"") - len(buffer)
        if not at_end and wanted > 0:
            more = file.read(wanted)
            at_end = len(more) < wanted
            buffer += more
        if not buffer:
            return
        piece, buffer = _first_piece(buffer, separator, position, opens, at_end)
        if piece is None:  # no place to cut so far
            _check_limit(len(buffer), "a text without a space")
            more = file.read(PIECE)
            at_end, buffer = len(more) < PIECE, buffer + more
            continue
        position, opens = piece.end, piece.closes
        yield piece


def _first_piece(
    buffer: bytes, separator: bytes | None, position: int, opens: bool, at_end: bool
) -> tuple[Piece | None, bytes]:
    """The next piece and what follows it; ``None`` where more has to be read first."""
    if separator is not None and not (at_end and opens):
        # Of an open document up to its end; else as many whole ones as there are.
        place = buffer.rfind(separator) if opens else buffer.find(separator)
        if place >= 0:
            end = place + len(separator)
            return Piece(buffer[:end], position + end, opens), buffer[end:]
    if at_end:
        return Piece(buffer, position + len(buffer), opens), b""
    place = safe_cut(buffer[: len(buffer) - len(separator or b"")])
    if place is None:
        return None, buffer
    return Piece(buffer[:place], position + place, opens, closes=False), buffer[place:]


def _check_limit(size: int, what: str) -> None:
    if size >= LIMIT:
        raise OverflowError(f"{what} of {LIMIT:,} bytes or more is not held in memory")


def safe_cut(content: bytes) -> int | None:
    r"""The last place where `content` may be cut; ``None`` where there is none.

    >>> safe_cut(b"one two\n\n three  ")
    15
    """
    window = _WINDOW
    while True:
        start = max(0, len(content) - window)
        while start and 0x80 <= content[start] < 0xC0:
            start -= 1  # to the first byte of a character
        # Bytes that are no UTF-8 are the worker's to complain about.
        text = content[start:].decode("utf-8", errors="surrogateescape")
        for match in reversed(list(_BEFORE_SPACE.finditer(text))):
            return start + len(text[: match.end()].encode("utf-8", errors="surrogateescape"))
        if start == 0:
            return None
        window *= 16
