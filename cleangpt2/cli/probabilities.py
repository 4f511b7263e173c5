"""``generate --show-probs``: every token in the colour of its probability, or in a table.

The probability is the model's own, before temperature and filters. Likely tokens are nearly
white, unlikely ones stand out: the five grounds fall in lightness, so they are told apart without
seeing red and green, and black text is readable on each, whatever the terminal's own colours are.
"""

import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cleangpt2.cli import terminal
from cleangpt2.cli.printing import in_turn, sum_up

if TYPE_CHECKING:
    from cleangpt2.completion import Completion, Delta
    from cleangpt2.tokenizer import Tokenizer


class Bucket(NamedTuple):
    """Probabilities that share a colour."""

    least: float
    colour: int
    """Number among the 256 colours of a terminal."""


BUCKETS = (
    Bucket(0.8, 230),  # ivory
    Bucket(0.5, 222),  # sand
    Bucket(0.2, 214),  # orange
    Bucket(0.05, 209),  # salmon
    Bucket(0.0, 205),  # pink
)


def bucket(probability: float) -> Bucket:
    """The first bucket that takes the probability.

    >>> [bucket(p).least for p in (1.0, 0.8, 0.79, 0.0)]
    [0.8, 0.8, 0.5, 0.0]
    """
    return next(b for b in BUCKETS if probability >= b.least)


def print_probabilities(
    deltas: "Iterable[Delta]", tokenizer: "Tokenizer", *, rows: int
) -> "list[Completion]":
    """Print the rows in order, each when it is finished; then what the colours mean."""
    began = time.monotonic()
    completions: list[Completion] = []
    for row, pieces in enumerate(in_turn(deltas, rows)):
        [completion] = [delta.completion for delta in pieces if delta.completion]
        completions.append(completion)
        if rows > 1:
            print(terminal.paint(f"--- {row + 1} of {rows} ---", "dim"))
        shows = terminal.has_colour()
        plain = terminal.harmless(completion.prompt + completion.text)
        print(coloured(completion, tokenizer) if shows else plain)
        if completion.top_logprobs or not shows:
            print("\n".join(["", *table(completion, tokenizer)]))
        sys.stdout.flush()
    if terminal.has_colour():
        print(f"\n{legend()}")
    sum_up(completions, time.monotonic() - began)
    return completions


def coloured(completion: "Completion", tokenizer: "Tokenizer") -> str:
    """The prompt, then every token on its ground."""
    parts = [terminal.paint(terminal.harmless(_prompt_read(completion, tokenizer)), "bold")]
    for text, logprob in zip(texts(completion.ids, tokenizer), completion.logprobs, strict=True):
        colour = bucket(math.exp(logprob)).colour
        # A ground must not run on to the end of a line, where a sign shows it instead.
        lines = terminal.harmless(text.replace("\n", "↵\n")).split("\n")
        parts.append("\n".join(terminal.ground(line, colour) if line else "" for line in lines))
    return "".join(parts)


def table(completion: "Completion", tokenizer: "Tokenizer") -> Iterator[str]:
    """A line for each token: its probability, and what else was likely.

    "model" is what the model itself says, "drawn" what is left of it after temperature and
    filters; where nothing was drawn, by greedy choice or a search, that column is left out.
    """
    filtered = completion.filtered_logprobs
    filtered = filtered if filtered and any(filtered) else None  # nothing to see if greedy
    tops = completion.top_logprobs
    names = [repr(text) for text in texts(completion.ids, tokenizer)]
    width = max(map(len, [*names, "token"]))
    head = f"{'token':<{width}}   model"
    yield head + ("   drawn" if filtered else "") + ("  likeliest" if tops else "")
    for row, name in enumerate(names):
        line = f"{name:<{width}}  {_probability(completion.logprobs[row])}"
        line += f"  {_probability(filtered[row])}" if filtered else ""
        if tops:
            others = texts([id for id, _ in tops[row]], tokenizer)
            pairs = zip(others, tops[row], strict=True)
            line += "".join(f"  {text!r} {_probability(p).strip()}" for text, (_, p) in pairs)
        yield line


def legend() -> str:
    """What the colours mean, each on its own ground."""
    upper = [1.0, *(b.least for b in BUCKETS)]
    pairs = zip(BUCKETS, upper, strict=False)
    grounds = [terminal.ground(f" {b.least:g} to {top:g} ", b.colour) for b, top in pairs]
    return terminal.paint("probability: ", "dim") + "".join(grounds)


def texts(ids: Sequence[int], tokenizer: "Tokenizer") -> list[str]:
    """The text of each token; parts of a character as their bytes."""
    from cleangpt2.tokenizer.pieces import place  # not for --help: its room imports tiktoken

    return [piece.spelt for piece in place((id, tokenizer.token_bytes(id)) for id in ids)]


def _prompt_read(completion: "Completion", tokenizer: "Tokenizer") -> str:
    """The prompt less what healing took off, which comes back among the tokens."""
    begun_from_nothing = completion.prompt_ids == [tokenizer.eos_id]
    return "" if begun_from_nothing else tokenizer.decode(completion.prompt_ids)


def _probability(logprob: float) -> str:
    """A probability in six places.

    >>> _probability(-0.1), _probability(-20.0)
    (' 0.905', '<0.001')
    """
    p = math.exp(logprob)
    return f"{p:6.3f}" if p >= 0.001 else "<0.001"
