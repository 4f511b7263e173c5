"""The best measurement on the validation texts so far, and when to stop waiting for a better."""

import math
from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class Best:
    """What is remembered from one measurement to the next; part of a checkpoint.

    >>> best = Best()
    >>> [best.improved_by(bits, step) for step, bits in [(10, 1.5), (20, 1.25), (30, 1.3)]]
    [True, True, False]
    >>> best
    Best(bits_per_byte=1.25, step=20, worse=1)
    """

    bits_per_byte: float = math.inf
    """The lowest so far."""
    step: int | None = None
    """Steps done when it was measured."""
    worse: int = 0
    """Measurements since then."""

    def improved_by(self, bits_per_byte: float, step: int) -> bool:
        """Take in a measurement after `step` steps; whether it is the best so far."""
        if bits_per_byte < self.bits_per_byte:
            self.bits_per_byte, self.step, self.worse = bits_per_byte, step, 0
            return True
        self.worse += 1
        return False

    def is_final(self, patience: int | None) -> bool:
        """Whether `patience` measurements in a row were no better; None waits for ever."""
        return patience is not None and self.worse >= patience
