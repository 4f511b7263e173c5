"""The text that a command works on: an argument, or what is piped in."""

import os
import sys

from cleangpt2.cli import terminal
from cleangpt2.errors import InputError


def given_or_piped(text: str | None) -> str | None:
    """The argument if there is one, else standard input without the line end that ``echo`` adds.

    ``None`` where nothing is piped in.

    Raises:
        InputError: What is piped in is not UTF-8.
    """
    if text is not None:
        return text
    if sys.stdin is None or sys.stdin.isatty():
        return None
    try:
        piped = _piped()  # perhaps of a file that was written on Windows
        return piped.removesuffix("\r\n" if piped.endswith("\r\n") else "\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"standard input is not UTF-8: byte {error.start} is "
            f"0x{error.object[error.start]:02x} ({error.reason}); "
            "convert the text first, as with `iconv -f latin1 -t utf-8`"
        ) from None


def _piped() -> str:
    """Standard input as strict UTF-8: the stream itself lets bad bytes through, as surrogates."""
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:  # a stand-in that holds text, as in a notebook
        return sys.stdin.read()
    return stream.read().decode("utf-8").replace(os.linesep, "\n")


def warn_of_last_space(text: str, way_out: str = "leave the space off") -> None:
    """Say what a space at the end of a prompt does to what follows it."""
    if text.endswith(" "):
        terminal.warn(
            "the text ends in a space; words carry the space before them, so as a prompt this asks "
            f"for a word without one: {way_out}"
        )
