"""``sft --show``: in the terminal, what a model learns from a row and what it only reads.

Each line begins with the position of its first token, as in a hex dump. What is learned stands on
a ground of its own, and between brackets, which need no colour.
"""

import shutil
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from cleangpt2.cli import terminal

if TYPE_CHECKING:
    from cleangpt2.sft.viewer import Document, Place, Row

OPENS, CLOSES = "⟦", "⟧"
_LEARNED = 151  # pale green among the 256 colours of a terminal
_MARGIN = 8  # columns of the position before each line


def print_rows(rows: "list[Row]") -> None:
    """Print the rows, and what the brackets mean."""
    width = max(shutil.get_terminal_size().columns, 40)
    for number, row in enumerate(rows, start=1):
        print(terminal.paint(f"row {number} of {len(rows)}: {row}", "bold"))
        for one in row.documents:
            print("\n".join(_document(one, width)))
        if row.padding:
            print(terminal.paint(f"  padding: {row.padding:,} places without a target", "dim"))
        print()
    print(f"{_ground(f'{OPENS}learned{CLOSES}')} tokens are targets; all others are only read")


def _document(one: "Document", width: int) -> Iterator[str]:
    from cleangpt2.sft.viewer import described

    yield terminal.paint(f"  {described(one)}", "red" if one.is_cut or one.strays else "blue")
    for line in _lines(one.places, width - _MARGIN - 1):
        position = "end" if line[0].position is None else line[0].position
        yield terminal.paint(f"{position:>6}  ", "dim") + _painted(line)


def _lines(places: "Iterable[Place]", width: int) -> "Iterator[list[Place]]":
    """The tokens in lines, which end where the text's do and when they are full."""
    line: list[Place] = []
    for place in places:
        if line and sum(len(_shown(p)) for p in line) + len(_shown(place)) + 2 > width:
            yield line
            line = []
        line.append(place)
        if "\n" in place.text:
            yield line
            line = []
    if line:
        yield line


def _painted(line: "list[Place]") -> str:
    """A line with brackets around what is learned; they close where it ends."""
    parts = []
    for is_learned, found in groupby(line, key=lambda place: place.is_learned):
        places = list(found)
        if is_learned:
            parts.append(_ground(f"{OPENS}{''.join(map(_shown, places))}{CLOSES}"))
        else:
            blue = [
                terminal.paint(_shown(p), "blue") if p.is_control else _shown(p) for p in places
            ]
            parts.append("".join(blue))
    return "".join(parts)


def _shown(place: "Place") -> str:
    return terminal.harmless(place.text.replace("\n", "↵").replace("\t", "⇥"))


def _ground(text: str) -> str:
    return terminal.ground(text, _LEARNED)
