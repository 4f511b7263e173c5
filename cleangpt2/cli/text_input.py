"""The text that a command works on: an argument, or what is piped in."""

import sys

from cleangpt2.cli import terminal


def given_or_piped(text: str | None) -> str | None:
    """The argument if there is one, else standard input without the line end that ``echo`` adds.

    ``None`` where nothing is piped in.
    """
    if text is not None:
        return text
    if sys.stdin is None or sys.stdin.isatty():
        return None
    return sys.stdin.read().removesuffix("\n")


def warn_of_last_space(text: str) -> None:
    """Say what a space at the end of a prompt does to what follows it."""
    if text.endswith(" "):
        terminal.warn(
            "the text ends in a space; words carry the space before them, so as a prompt this asks "
            "for a word without one: leave the space off"
        )
