import math
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cleangpt2.report.axis import axis, linear, short

FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)


@given(st.lists(FINITE, min_size=1, max_size=8))
@example([0.0])
@example([5e-324])
@example([5e-324, 1e300])
@example([1e-289, 1e300, 1e-289])
@example([-1e300, 1e300])
@example([0.1 + 0.2, 0.3])
@example([1e9, 1e9 + 1])
def test_the_ticks_cover_the_values(values):
    found = axis(values)
    slack = 1e-9 * max(map(abs, values))
    assert found.low <= min(values) + slack and found.high >= max(values) - slack
    assert 2 <= len(found.ticks) <= 9
    assert all(a < b for a, b in pairwise(found.ticks))
    assert all(math.isfinite(tick) for tick in found.ticks)
    assert all(-1e-9 <= found.place(value) <= 1 + 1e-9 for value in values if not found.is_log)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 300, (0, 100, 200, 300)),
        (2.6191, 3.5962, (2.6, 2.8, 3.0, 3.2, 3.4, 3.6)),
        (0, 0.003, (0, 0.001, 0.002, 0.003)),
        (-1, 1, (-1, -0.5, 0, 0.5, 1)),
        (99_000, 100_000, (99_000, 99_200, 99_400, 99_600, 99_800, 100_000)),
    ],
)
def test_ticks_are_round_numbers(low, high, ticks):
    assert linear(low, high).ticks == ticks


def test_a_spike_far_above_the_rest_makes_the_axis_logarithmic():
    found = axis([1.0] * 50 + [5000.0])
    assert found.is_log and found.ticks == (1.0, 10.0, 100.0, 1000.0, 10_000.0)
    assert found.place(100.0) == pytest.approx(0.5)
    assert not axis([1.0] * 50 + [50.0]).is_log
    assert not axis([-1.0] * 50 + [5000.0]).is_log


def test_no_values_still_have_an_axis():
    assert axis([]).ticks == (0.0, 1.0)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(10.5e3, "10.5k"), (9999, "9999"), (-20_000, "-20k"), (0.25, "0.25"), (2e-7, "2e-7"),
     (3e9, "3G"), (1e300, "1e300")],
)  # fmt: skip
def test_numbers_beside_an_axis_are_short(value, shown):
    assert short(value) == shown
