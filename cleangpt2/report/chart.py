"""A chart of one number: paths in an SVG that stretches, labels in HTML around it that do not.

The SVG carries its ranges in ``data-x`` and ``data-y``, so that every point can be read back. The
values are titles of invisible columns: browsers show them under the pointer without a script.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cleangpt2.report.axis import Axis, axis, linear, short
from cleangpt2.report.curve import Curve, is_noisy, smoothed, spread, thinned
from cleangpt2.report.markup import escape

WIDTH, HEIGHT = 1000, 300  # of the SVG's own coordinates
_MOST_POINTS, _MOST_MEANS, _MOST_COLUMNS, _MOST_DOTS, _MOST_RAW = 600, 200, 100, 40, 3


@dataclass(frozen=True, slots=True)
class Line:
    """The curve of one run, and the run's number, which chooses the colour."""

    number: int
    name: str
    curve: Curve


def chart(title: str, unit: str, lines: Sequence[Line]) -> str:
    """The figure of one metric; without a picture where there is no point to draw.

    Args:
        title: What is measured, also the name a screen reader says.
        unit: In what, or an empty text.
        lines: One for each run that has it.
    """
    drawn = [line for line in lines if len(line.curve)]
    if not drawn:
        return f"<figure>{_caption(title, unit)}{_left_out(lines)}</figure>"
    x = linear(0, max(line.curve.steps[-1] for line in drawn), count=6)
    y = axis([value for line in drawn for value in line.curve.values])
    paths = "\n".join(_paths(line, x, y, has_raw=len(drawn) <= _MOST_RAW) for line in drawn)
    columns = f'<g class="columns">{_columns(drawn, x)}</g>'
    return frame(title, unit, x, y, f"{paths}\n{columns}", below=_left_out(lines))


def frame(title: str, unit: str, x: Axis, y: Axis, drawn: str, *, below: str = "") -> str:
    """A figure: caption, axes, and what is `drawn` in the SVG's coordinates between them."""
    return f"""<figure>
{_caption(title, unit)}
<div class="plot">
<div class="y">{_labels(y, "bottom")}</div>
<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img"
 aria-label="{escape(title)}" data-metric="{escape(title)}"
 data-x="{x.low!r} {x.high!r}" data-y="{y.low!r} {y.high!r}" data-log="{int(y.is_log)}">
{_grid(x, y)}
{drawn}
</svg>
<div class="x">{_labels(x, "left")}</div>
</div>{below}
</figure>"""


def _caption(title: str, unit: str) -> str:
    return f"<figcaption><b>{escape(title)}</b> <span>{escape(unit)}</span></figcaption>"


def colours(number: int) -> str:
    """The style of a run's line: colours are told apart by all eyes, dashes also in grey print."""
    return f"run{number % 6} dash{(number + number // 6) % 6}"


def _paths(line: Line, x: Axis, y: Axis, *, has_raw: bool) -> str:
    """The curve; if it is noisy, its mean in front and, in a chart of few runs, itself behind."""
    points = thinned(line.curve, _MOST_POINTS)
    if is_noisy(line.curve):
        raw = _path(points, x, y, f"raw run{line.number % 6}") if has_raw else ""
        return raw + _path(smoothed(line.curve, _MOST_MEANS), x, y, f"mean {colours(line.number)}")
    dots = _dots(points, x, y, line.number) if len(points) <= _MOST_DOTS else ""
    return _path(points, x, y, f"line {colours(line.number)}") + dots


def _path(curve: Curve, x: Axis, y: Axis, style: str) -> str:
    return f'<path class="{style}" d="M{"L".join(_places(curve, x, y))}"/>'


def _dots(curve: Curve, x: Axis, y: Axis, number: int) -> str:
    """Lines of no length with round ends: circles that do not stretch with the picture."""
    places = "".join(f"M{place}h0" for place in _places(curve, x, y))
    return f'<path class="dots run{number % 6}" d="{places}"/>'


def _places(curve: Curve, x: Axis, y: Axis) -> list[str]:
    return [
        f"{WIDTH * x.place(step):.2f} {HEIGHT * (1 - y.place(value)):.2f}"
        for step, value in zip(curve.steps, curve.values, strict=True)
    ]


def _grid(x: Axis, y: Axis) -> str:
    across = "".join(f"M0 {HEIGHT * (1 - y.place(tick)):.2f}h{WIDTH}" for tick in y.ticks)
    upright = "".join(f"M{WIDTH * x.place(tick):.2f} 0v{HEIGHT}" for tick in x.ticks)
    return f'<path class="grid-lines" d="{across}{upright}"/>'


def _labels(axis: Axis, side: str) -> str:
    return "".join(
        f'<span style="{side}:{100 * axis.place(tick):.2f}%">{short(tick)}</span>'
        for tick in axis.ticks
    )


def _columns(lines: Sequence[Line], x: Axis) -> str:
    """Columns side by side, each with the values of all runs at one step as its title."""
    steps = sorted({step for line in lines for step in line.curve.steps})
    chosen = [steps[i] for i in spread(len(steps), _MOST_COLUMNS)]
    middles = [WIDTH * x.place((a + b) / 2) for a, b in pairwise(chosen)]
    edges = [0.0, *middles, float(WIDTH)]
    return "".join(
        f'<rect x="{start:.2f}" width="{end - start:.2f}" height="{HEIGHT}">'
        f"<title>{_said(lines, step)}</title></rect>"
        for step, (start, end) in zip(chosen, pairwise(edges), strict=True)
    )


def _said(lines: Sequence[Line], step: int) -> str:
    """What the pointer is told at a step: of each run the value there, or the nearest before."""
    said = [f"step {step:,}"]
    for line in lines:
        steps = line.curve.steps
        at = bisect_left(steps, step + 1) - 1
        if at >= 0 and step <= steps[-1]:
            name = f"{escape(line.name, 40)}: " if len(lines) > 1 else ""
            said.append(f"{name}{line.curve.values[at]:.6g}")
    return "\n".join(said)


def _left_out(lines: Sequence[Line]) -> str:
    """How many values were NaN or infinite, which no axis has a place for."""
    counts = [
        f"{line.curve.not_finite:,} of {escape(line.name, 40)}"
        for line in lines
        if line.curve.not_finite
    ]
    return f'\n<p class="warning">not finite, not drawn: {", ".join(counts)}</p>' if counts else ""
