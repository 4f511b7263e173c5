"""Axes: a range of round numbers around the values, and ticks that a person would choose."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_SUFFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_TINY = 1e-290  # below it a tick may have no exponent of its own


@dataclass(frozen=True, slots=True)
class Axis:
    """A range and its ticks, the first at the low end and the last at the high end."""

    ticks: tuple[float, ...]
    is_log: bool = False

    @property
    def low(self) -> float:
        """The value at the start of the axis."""
        return self.ticks[0]

    @property
    def high(self) -> float:
        """The value at the end of the axis."""
        return self.ticks[-1]

    def place(self, value: float) -> float:
        """How far along the axis a value stands, from 0 to 1."""
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return (value - low) / (high - low)


def axis(values: Sequence[float], *, count: int = 5) -> Axis:
    """The axis of a chart's values: linear, or logarithmic where a few dwarf all others.

    Args:
        values: What is to be drawn; may be empty, must be finite.
        count: About how many ticks there is room for.
    """
    if not values:
        return Axis((0.0, 1.0))
    low, high = min(values), max(values)
    median = sorted(values)[len(values) // 2]
    if low > _TINY and high > 100 * median:
        return logarithmic(low, high, count)
    return linear(low, high, count)


def linear(low: float, high: float, count: int = 5) -> Axis:
    """Ticks at multiples of 1, 2 or 5 times a power of ten, around `low` and `high`.

    >>> linear(2.62, 3.9).ticks
    (2.5, 3.0, 3.5, 4.0)
    >>> linear(7, 7, count=2).ticks
    (6.0, 7.0, 8.0)
    """
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * size or size < _TINY:  # one value, or float noise around it
        reach = size / 10 if size >= _TINY else 1.0
        low, high = low - reach, high + reach
    step = _round_up((high - low) / count)
    first, last = math.floor(low / step), math.ceil(high / step)
    # 3 * 0.1 is 0.30000000000000004; twelve digits hide that and no tick.
    return Axis(tuple(float(f"{i * step:.12g}") + 0.0 for i in range(first, last + 1)))


def logarithmic(low: float, high: float, count: int = 5) -> Axis:
    """Ticks at powers of ten around two positive values.

    >>> logarithmic(0.5, 800).ticks
    (0.1, 1.0, 10.0, 100.0, 1000.0)
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = math.ceil((last - first) / count)
    powers = (*range(first, last, stride), last)
    return Axis(tuple(float(f"1e{power}") for power in powers), is_log=True)


def short(value: float) -> str:
    """A number as one writes it beside an axis.

    >>> [short(v) for v in (0, 2.5, 250, 12_000, 1_500_000, 3e-05)]
    ['0', '2.5', '250', '12k', '1.5M', '3e-5']
    """
    if abs(value) < 1e15:
        for unit, suffix in _SUFFIXES:
            if abs(value) >= max(unit, 1e4):
                return f"{value / unit:.6g}{suffix}"
    mantissa, e, power = f"{value:.6g}".partition("e")
    return f"{mantissa}e{int(power)}" if e else mantissa


def _round_up(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten.

    >>> [_round_up(step) for step in (0.9, 1.1, 30, 0.5)]
    [1.0, 2.0, 50.0, 0.5]
    """
    power = math.floor(math.log10(step))
    rounded = (float(f"{digit}e{power}") for digit in (1, 2, 5, 10))
    return next(candidate for candidate in rounded if candidate >= step)
