"""What a sweep found, drawn: the result of each run over the value of each setting."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cleangpt2.report.axis import Axis, axis, linear, logarithmic
from cleangpt2.report.chart import HEIGHT, WIDTH, colours, frame
from cleangpt2.report.markup import escape

_FAR_APART = 10  # times: from there on values are spread by their logarithms


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """The settings of one run, as they were typed, and what they led to."""

    values: dict[str, str]
    bits_per_byte: float | None
    loss: float | None
    answer_loss: float | None = None
    """On held-out answers, of a run that learns from examples."""


def sweep_charts(points: Sequence[Point]) -> str:
    """A chart for each setting whose values are numbers; an empty text if there is none."""
    measures = {
        "answer_loss": ("Held-out answers", "nats a token"),
        "bits_per_byte": ("Validation", "bits per byte"),
        "loss": ("Training loss", "nats a token"),
    }
    known = (m for m in measures if any(getattr(point, m) is not None for point in points))
    measure = next(known, "loss")
    title, unit = measures[measure]
    results = [(point.values, getattr(point, measure)) for point in points]
    names = list(dict.fromkeys(name for point in points for name in point.values))
    charts = (_chart(f"{title} by {name}", unit, name, results) for name in names)
    return "\n".join(chart for chart in charts if chart)


def _chart(
    title: str, unit: str, name: str, results: list[tuple[dict[str, str], float | None]]
) -> str:
    """One line for each combination of the other settings."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for values, result in results:
        x = _number(values[name])
        if x is None:
            return ""
        others = ", ".join(f"{key}={value}" for key, value in values.items() if key != name)
        if result is not None and math.isfinite(result):
            lines.setdefault(others, []).append((x, result))
    points = [point for line in lines.values() for point in line]
    if len({x for x, _ in points}) < 2:
        return ""
    across, up = _across([x for x, _ in points]), axis([y for _, y in points])
    drawn = "\n".join(
        _line(number, others, sorted(line), across, up)
        for number, (others, line) in enumerate(lines.items())
    )
    return frame(title, unit, across, up, drawn)


def _line(
    number: int, others: str, points: list[tuple[float, float]], across: Axis, up: Axis
) -> str:
    """Dots that are joined; the title of each says what it is."""
    places = [f"{WIDTH * across.place(x):.2f} {HEIGHT * (1 - up.place(y)):.2f}" for x, y in points]
    dots = "".join(
        f'<path class="dots run{number % 6}" d="M{place}h0"><title>'
        f"{escape(others + ': ' if others else '')}{x:g}: {y:.6g}</title></path>"
        for place, (x, y) in zip(places, points, strict=True)
    )
    return f'<path class="line {colours(number)}" d="M{"L".join(places)}"/>{dots}'


def _across(values: list[float]) -> Axis:
    low, high = min(values), max(values)
    if low > 0 and high >= _FAR_APART * low:
        return logarithmic(low, high)
    return linear(low, high)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
