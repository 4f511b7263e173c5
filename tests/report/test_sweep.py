"""The picture of a sweep: every result at the place of its value."""

import re

import pytest

from cleangpt2.report.sweep import Point, sweep_charts


def point(bits=None, loss=None, **values):
    return Point(values=values, bits_per_byte=bits, loss=loss)


def figures(page):
    """Title of each figure -> its dots, read back from the coordinates of the SVG."""
    found = {}
    for figure in page.split("</figure>")[:-1]:
        title = re.search(r'data-metric="([^"]*)"', figure)[1]
        (x0, x1), (y0, y1) = (
            map(float, re.search(rf'data-{axis}="(\S+) (\S+)"', figure).groups()) for axis in "xy"
        )
        dots = re.findall(r'class="dots \w+" d="M(\S+) (\S+)h0"', figure)
        found[title] = [
            (x0 + float(x) / 1000 * (x1 - x0), y1 - float(y) / 300 * (y1 - y0)) for x, y in dots
        ]
    return found


def test_each_result_stands_over_its_value():
    page = sweep_charts([point(lr="2e-3", bits=1.5), point(lr="1e-3", bits=1.75, loss=3.0)])
    ((title, dots),) = figures(page).items()
    assert title == "Validation by lr"
    for dot, expected in zip(dots, [(1e-3, 1.75), (2e-3, 1.5)], strict=True):
        assert dot == pytest.approx(expected, rel=1e-3)


def test_values_far_apart_are_spread_by_their_logarithms():
    page = sweep_charts([point(lr=value, loss=3.0) for value in ("1e-4", "1e-3", "1e-2")])
    places = [float(x) for x in re.findall(r'd="M(\S+) \S+h0"', page)]
    assert places == pytest.approx([0, 500, 1000])
    assert "Training loss by lr" in page


def test_a_grid_has_a_chart_for_each_number_and_a_line_for_each_other_setting():
    points = [
        point(lr=lr, n_layer=layers, kind=kind, loss=float(layers))
        for lr in ("1", "2")
        for layers in ("2", "4")
        for kind in ("a", "b")
    ]
    page = sweep_charts(points)
    assert {title: len(dots) for title, dots in figures(page).items()} == {
        "Training loss by lr": 8,
        "Training loss by n_layer": 8,
    }
    assert page.count('class="line') == 8
    assert "lr=1, kind=b: 4: 4" in page


def test_runs_without_a_result_and_settings_without_an_order_are_left_out():
    failed = [point(lr="1", loss=1.0), point(lr="2"), point(lr="3", loss=float("nan"))]
    assert sweep_charts(failed) == ""  # one dot is no picture
    assert sweep_charts([point(kind="a", loss=1.0), point(kind="b", loss=2.0)]) == ""
    assert sweep_charts([]) == ""


def test_names_are_shown_as_text():
    page = sweep_charts([point(lr=lr, kind="<b>", loss=1.0) for lr in ("1", "2")])
    assert "<b>:" not in page and "kind=&lt;b&gt;: 1: 1" in page
