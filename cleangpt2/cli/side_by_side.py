"""What ``compare`` prints: the answers in columns, and what each model thinks of every token."""

import math
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from cleangpt2.cli import terminal
from cleangpt2.sft.change import STEPS, compared, factor, step

if TYPE_CHECKING:
    from cleangpt2.sft.compare import Answer, Comparison

_GAP = 3
_LEAST = 18  # columns of an answer; on a narrower screen they stand below each other

Line = list[tuple[str, int]]  # texts and their grounds


def print_comparison(
    comparison: "Comparison", heading: str, names: Sequence[str], *, tokens: bool
) -> None:
    """Print the answers to one prompt, their sums, and without colour a table of their tokens."""
    print(terminal.paint(terminal.harmless(heading), "bold"))
    answers, M = comparison.answers, len(names)
    width = (shutil.get_terminal_size().columns - _GAP * (M - 1)) // M
    groups = [range(M)] if width >= _LEAST else [[m] for m in range(M)]
    for group in groups:
        columns = [_column(m, answers[m], names[m], max(width, _LEAST)) for m in group]
        for cells in zip_longest(*columns):
            print((" " * _GAP).join(cell or " " * max(width, _LEAST) for cell in cells).rstrip())
    print()
    for m, answer in enumerate(answers):
        if tokens or not terminal.has_colour():
            print("\n".join(_table(letter(m), answer)) + "\n")
        else:
            print(f"{letter(m)}'s answer: {_sums(answer)}")
    if terminal.has_colour() and not tokens:
        print(flush=True)


def print_legend(names: Sequence[str]) -> None:
    """What the colours or signs mean."""
    letters = ", ".join(f"{letter(m)} {name}" for m, name in enumerate(names))
    print(terminal.harmless(letters))
    print("An answer is compared under A and under its writer, that of A under A and B.")
    if terminal.has_colour():
        print("".join(terminal.ground(f" {s.meaning} ", s.colour) for s in STEPS))
    print("Probabilities and KL are the models' own, before temperature and filters.")


def letter(model: int) -> str:
    """A model's name in tables.

    >>> letter(0), letter(2)
    ('A', 'C')
    """
    return chr(ord("A") + model)


def _column(m: int, answer: "Answer", name: str, width: int) -> Iterator[str]:
    """The lines of an answer, each padded to its width."""
    completion = answer.completion
    # Of a long path the end says most.
    shown = name if len(name) + 2 <= width else f"…{name[-(width - 3) :]}"
    head = f"{letter(m)} {shown}"
    yield terminal.paint(f"{terminal.harmless(head):<{width}}", "blue")
    for line in wrapped(answer.tokens, answer.change(compared(m)), width):
        parts = [terminal.ground(text, ground) for text, ground in line if text]
        filled = sum(cells(text) for text, _ in line)
        yield "".join(parts) + " " * (width - filled)
    length = len(completion.ids)
    ended = f"{length} token{'' if length == 1 else 's'}, {completion.finish_reason}"
    yield terminal.paint(f"{ended[:width]:<{width}}", "dim")


def wrapped(tokens: Sequence[str], changes: Sequence[float], width: int) -> list[Line]:
    """The tokens of an answer in lines of a width, which break where the text does.

    >>> for line in wrapped([" a", " dog", " ran"], [0, 0, 3], 6): print(line)
    [(' a', 230), (' dog', 230)]
    [(' ran', 117)]
    """
    lines: list[Line] = [[]]
    room = width
    for token, change in zip(tokens, changes, strict=True):
        *ended, rest = terminal.harmless(token.replace("\n", "↵\n").replace("\t", " ")).split("\n")
        for number, part in enumerate([*ended, rest]):
            if number:
                lines.append([])
                room = width
            while part:
                if cells(part) > room and room < width:
                    lines.append([])
                    room = width
                piece = _fitting(part, room)
                lines[-1].append((piece, step(change).colour))
                part, room = part[len(piece) :], room - cells(piece)
    return lines


def _fitting(text: str, room: int) -> str:
    """As much of the beginning of a text as there is room for, but one character at least."""
    end = 1
    while end < len(text) and cells(text[: end + 1]) <= room:
        end += 1
    return text[:end]


def cells(text: str) -> int:
    """The places of a terminal that a text takes.

    >>> cells("caf\u00e9"), cells("\u6771\u4eac"), cells("e\u0301")
    (4, 4, 1)
    """
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _table(writer: str, answer: "Answer") -> Iterator[str]:
    """A line for each token: its probability under each model, the change, and KL."""
    M = len(answer.logprobs)
    others = [letter(m) for m in range(1, M)]
    names = [terminal.harmless(repr(token)) for token in answer.tokens]
    title = f"{writer}'s answer"
    width = max(map(cells, [*names, title, "sum, nats"]))
    yield (
        title
        + " " * (width - len(title))
        + "".join(
            [f"{letter(m):>9}" for m in range(M)]
            + [f"{f'{other}/A':>9}" for other in others]
            + [f"{f'KL(A|{other})':>9}" for other in others]
        )
    )
    for place, name in enumerate(names):
        figures = [_probability(logprobs[place]) for logprobs in answer.logprobs]
        figures += [factor(answer.change(m)[place]) for m in range(1, M)]
        figures += [f"{answer.kl[m][place]:.4f}" for m in range(1, M)]
        yield name + " " * (width - cells(name)) + "".join(f"{figure:>9}" for figure in figures)
    sums = [f"{sum(logprobs):.2f}" for logprobs in answer.logprobs]
    sums += [f"{sum(answer.change(m)):+.2f}" for m in range(1, M)]
    sums += [f"{sum(answer.kl[m]):.4f}" for m in range(1, M)]
    yield "sum, nats" + " " * (width - 9) + "".join(f"{figure:>9}" for figure in sums)


def _sums(answer: "Answer") -> str:
    """The sums of a table in words."""
    M = len(answer.logprobs)
    parts = [f"log p {', '.join(f'{letter(m)} {sum(answer.logprobs[m]):.1f}' for m in range(M))}"]
    parts += [f"KL(A|{letter(m)}) {sum(answer.kl[m]):.3f}" for m in range(1, M)]
    return "; ".join(parts) + " nats"


def _probability(logprob: float) -> str:
    p = math.exp(logprob)
    return f"{p:.3f}" if p >= 0.001 else "<0.001"
