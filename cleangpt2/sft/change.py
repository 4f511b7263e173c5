"""By how much a model likes a token better or worse than another does, in five steps."""

import math
from typing import NamedTuple


class Step(NamedTuple):
    """Changes that are shown alike."""

    least: float
    """In nats: log p of the one model minus log p of the other."""
    colour: int
    """Number among the 256 colours of a terminal."""
    sign: str
    """What tells it apart without colour."""
    meaning: str


STEPS = (
    Step(math.log(10), 117, "++", "10 times likelier or more"),
    Step(math.log(2), 153, "+", "2 to 10 times likelier"),
    Step(-math.log(2), 230, "", "about as likely"),
    Step(-math.log(10), 223, "-", "2 to 10 times less likely"),
    Step(-math.inf, 209, "--", "10 times less likely or more"),
)


def step(change: float) -> Step:
    """The step that a change falls in.

    >>> [step(change).sign for change in (3.0, 1.0, 0.0, -1.0, -3.0)]
    ['++', '+', '', '-', '--']
    """
    return next(s for s in STEPS if change >= s.least)


def compared(writer: int) -> int:
    """Whose view of an answer is shown beside the first model's: the writer's, or the second's.

    >>> [compared(writer) for writer in (0, 1, 2)]
    [1, 1, 2]
    """
    return max(writer, 1)


def factor(change: float) -> str:
    """A change as a factor, in at most six places.

    >>> [factor(change) for change in (0.0, 0.7, -2.5, 12.0, -12.0)]
    ['x1.00', 'x2.01', 'x0.082', '>x999', '<x.001']
    """
    if change > math.log(999):
        return ">x999"
    ratio = math.exp(change)
    if ratio < 0.001:
        return "<x.001"
    places = sum(ratio < bound for bound in (100, 10, 0.1))
    return f"x{ratio:.{places}f}"
