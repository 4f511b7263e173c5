"""What can be run by name, what it should reach, and what was really run; no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One line of the table."""

    name: str
    command: str
    """What to type after ``python -m cleangpt2.recipes.``."""
    makes: str
    """The model and its data."""
    expected: str
    """What a whole run should reach, and whose figure that is."""
    petaflop: float
    """Work of a whole run; a CPU core does 0.1 to 0.3 of it in an hour, an H100 1,800."""
    time: str
    """What a whole run takes, and where."""
    ran: str
    """What was run by the authors of this package, with what outcome."""


RECIPES = (
    Recipe(
        name="story --size tiny",
        command="story --size tiny --data DIR --out runs/tiny",
        makes="0.9 M parameters, 6.1 M tokens of TinyStories",
        expected="0.855 bits per byte of 500 held-out stories",
        petaflop=0.045,
        time="under an hour on 2 CPU cores",
        ran="in full; it is the bundled model",
    ),
    Recipe(
        name="story",
        command="story --data DIR --out runs/story",
        makes="5.9 M parameters, 13.1 M tokens of TinyStories",
        expected="0.665 bits per byte of 500 held-out stories",
        petaflop=0.58,
        time="a few hours on 2 CPU cores",
        ran="in full; it is the bundled model",
    ),
    Recipe(
        name="shakespeare",
        command="shakespeare --data FILE",
        makes="0.8 M parameters, tiny Shakespeare byte by byte",
        expected="1.62 nats per character of the last tenth (nanoGPT: 1.88)",
        petaflop=0.0082,
        time="some 3 minutes on 2 free CPU cores, 14 on busy ones",
        ran="in full: 1.623; with nanoGPT's optimiser and schedule 1.868",
    ),
    Recipe(
        name="shakespeare --size gpu",
        command="shakespeare --size gpu --data FILE",
        makes="10.8 M parameters, tiny Shakespeare byte by byte",
        expected="below nanoGPT's 1.4697 nats per character",
        petaflop=5.8,
        time="nanoGPT: 3 minutes on an A100",
        ran="not run",
    ),
    Recipe(
        name="gpt2_124m",
        command="gpt2_124m --data DIR",
        makes="GPT-2 124M, 9.9 G tokens of FineWeb, llm.c's schedule",
        expected="3.28 nats per token of held-out FineWeb (llm.c, modded-nanogpt)",
        petaflop=8_450,
        time="llm.c: 94 minutes and $20 on 8 A100s",
        ran="2 steps of a small shape, in the tests; not in full",
    ),
)


def table() -> str:
    """All recipes as a table in Markdown."""
    rows = [
        ("recipe", "what it makes", "expected", "PFLOP", "time", "what was run here"),
        ("---",) * 6,
        *((f"`{r.name}`", r.makes, r.expected, f"{r.petaflop:,}", r.time, r.ran) for r in RECIPES),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
