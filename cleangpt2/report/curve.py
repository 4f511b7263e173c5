"""One number of a run over its steps: read in order, smoothed, and thinned for drawing."""

import math
from array import array
from collections.abc import Sequence
from itertools import pairwise

LARGEST = 1e300
"""Beyond it the difference of two values may not be finite, so they count as infinite."""


class Curve:
    """Steps done, ascending, and the finite values measured after them."""

    def __init__(self) -> None:
        self.steps = array("q")
        self.values = array("d")
        self.not_finite = 0

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, step: int, value: float) -> None:
        """Append a point; it replaces those of its step and of later ones.

        Steps are repeated where a run went on from an earlier checkpoint.
        """
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
            self.values.pop()
        if abs(value) <= LARGEST:  # false for NaN too
            self.steps.append(step)
            self.values.append(value)
        else:
            self.not_finite += 1


def curve(points: list[tuple[int, float]]) -> Curve:
    """The curve through `points`, which are in the order of their steps."""
    made = Curve()
    for step, value in points:
        made.add(step, value)
    return made


def is_noisy(line: Curve) -> bool:
    """Whether its way up and down is much longer than its range, so that a mean helps the eye.

    A schedule that rises and falls goes twice through its range; a noisy loss does so many times.
    """
    if len(line) < 30:
        return False
    way = sum(abs(after - before) for before, after in pairwise(line.values))
    return way > 4 * (max(line.values) - min(line.values))


def window(n: int) -> int:
    """Points that one mean of n noisy points takes in: 3% of them, 9 at least, an odd number."""
    return max(9, 3 * n // 100) | 1


def smoothed(line: Curve, most: int) -> Curve:
    """The means of the neighbourhoods of `most` of its points, the ends among them.

    A neighbourhood shrinks towards the start, where a loss falls fast and its mean must not lag;
    at the end it keeps its left half, or the last point alone would bend the line.
    """
    reach = window(len(line)) // 2
    points = []
    for i in spread(len(line), most):
        near = min(reach, i)  # and what is there to the right
        # Exact sums of each neighbourhood: running ones would not forget a spike of 1e20.
        points.append((line.steps[i], _mean(line.values[i - near : i + near + 1])))
    return curve(points)


def recent_mean(line: Curve) -> float:
    """The mean of the last `window` values: what a noisy loss has come to.

    >>> recent_mean(curve([(step, float(step)) for step in range(1, 101)]))
    96.0
    """
    return _mean(line.values[-window(len(line)) :])


def thinned(line: Curve, most: int) -> Curve:
    """At most about `most` of its points, the ends and every extreme among them.

    Of each run of neighbours the smallest and the largest stay, so that no spike is lost.
    """
    n = len(line)
    if n <= most:
        return line
    kept = {0, n - 1}
    groups = most // 2
    for group in range(groups):
        indices = range(n * group // groups, n * (group + 1) // groups)
        kept.add(min(indices, key=line.values.__getitem__))
        kept.add(max(indices, key=line.values.__getitem__))
    return curve([(line.steps[i], line.values[i]) for i in sorted(kept)])


def spread(n: int, most: int) -> list[int]:
    """At most `most` of the numbers 0 to n - 1, evenly, the first and the last among them.

    >>> spread(9, 5), spread(3, 5)
    ([0, 2, 4, 6, 8], [0, 1, 2])
    """
    if n <= most:
        return list(range(n))
    return [(n - 1) * part // (most - 1) for part in range(most)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
