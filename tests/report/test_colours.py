"""Colours of runs, as eyes see them that lack one of the three kinds of cones.

Simulation: Machado, Oliveira & Fernandes (2009), matrices for a severity of 1.
"""

import itertools
import re
from pathlib import Path

import pytest

import cleangpt2.report

VISION = {
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no long (protanopia)": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "no middle (deuteranopia)": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "no short (tritanopia)": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def themes():
    """The colours of the light and of the dark page: name -> red, green, blue in 0 to 1, linear."""
    css = (Path(cleangpt2.report.__file__).parent / "page.css").read_text(encoding="utf-8")
    found = [dict(re.findall(r"--(\w+): (#\w+);", part)) for part in css.split("@media")[:2]]
    return dict(zip(("light", "dark"), found, strict=True))


def linear(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    return [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]


def times(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def lab(rgb):
    """CIE L*a*b* of linear sRGB."""
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    xyz = times(to_xyz, [min(1.0, max(0.0, part)) for part in rgb])
    x, y, z = (
        t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116
        for t in (value / white for value, white in zip(xyz, (0.9505, 1, 1.089), strict=True))
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def luminance(colour):
    return sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("eyes", VISION)
def test_all_eyes_tell_the_first_runs_apart(theme, eyes):
    runs = [themes()[theme][f"run{i}"] for i in range(6)]
    seen = [lab(times(VISION[eyes], linear(colour))) for colour in runs]
    for (i, a), (j, b) in itertools.combinations(enumerate(seen), 2):
        difference = sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5
        assert difference > 25, (runs[i], runs[j], difference)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_and_texts_stand_out_from_the_ground(theme):
    colours = themes()[theme]
    for name, least in [(f"run{i}", 3) for i in range(6)] + [("text", 7), ("dim", 4.5)]:
        low, high = sorted((luminance(colours[name]), luminance(colours["ground"])))
        assert (high + 0.05) / (low + 0.05) >= least, (name, colours[name])
