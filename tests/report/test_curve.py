import math
import random

import pytest

from cleangpt2.report.curve import Curve, curve, is_noisy, recent_mean, smoothed, thinned, window


def noise(n, seed=0):
    numbers = random.Random(seed)
    return curve([(step, 3 + numbers.gauss(0, 1)) for step in range(1, n + 1)])


def test_a_step_that_comes_again_replaces_what_followed_it():
    line = curve([(1, 5.0), (2, 4.0), (3, 3.0), (2, 9.0)])
    assert list(zip(line.steps, line.values, strict=True)) == [(1, 5.0), (2, 9.0)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e305])
def test_what_no_axis_has_a_place_for_is_counted(value):
    line = curve([(1, 5.0), (2, value), (3, 3.0)])
    assert list(line.steps) == [1, 3]
    assert line.not_finite == 1


def test_thinning_keeps_the_ends_and_every_extreme():
    line = noise(10_000)
    line.values[1234], line.values[8765] = 99.0, -99.0
    thin = thinned(line, 100)
    assert 50 <= len(thin) <= 102
    points = set(zip(line.steps, line.values, strict=True))
    assert set(zip(thin.steps, thin.values, strict=True)) <= points
    assert (thin.steps[0], thin.steps[-1]) == (1, 10_000)
    assert {99.0, -99.0} <= set(thin.values)


def test_a_short_curve_is_drawn_whole():
    line = noise(100)
    assert thinned(line, 100) is line


def test_smoothing_is_the_mean_of_the_neighbourhood():
    line = noise(400)
    reach = window(400) // 2
    means = smoothed(line, 400)
    assert means.steps == line.steps
    around = line.values[200 - reach : 200 + reach + 1]
    assert len(around) == window(400) == 13
    assert means.values[200] == pytest.approx(sum(around) / 13)
    assert means.values[0] == line.values[0]


def test_smoothing_neither_lags_nor_remembers_a_spike():
    straight = curve([(step, float(step)) for step in range(1, 501)])
    middle = 500 - window(500) // 2
    assert smoothed(straight, 500).values[:middle] == pytest.approx(straight.values[:middle])
    straight.values[100] = 1e200
    means = smoothed(straight, 500).values
    assert means[200:middle] == pytest.approx(straight.values[200:middle])


def test_the_last_point_alone_does_not_bend_the_mean():
    line = curve([(step, float(step == 100)) for step in range(1, 101)])
    assert smoothed(line, 100).values[-1] == 1 / (1 + window(100) // 2)


@pytest.mark.parametrize("n", [1, 2, 3, 50])
@pytest.mark.parametrize("most", [2, 7])
def test_smoothing_keeps_both_ends(n, most):
    means = smoothed(noise(n), most)
    assert len(means) == min(n, most)
    assert {means.steps[0], means.steps[-1]} == {1, n}


def test_a_schedule_is_not_noisy_and_a_loss_is():
    rise_and_fall = [min(step, 200 - step) / 100 for step in range(200)]
    assert not is_noisy(curve(list(enumerate(rise_and_fall))))
    assert is_noisy(noise(200))
    assert not is_noisy(curve([(step, 1.0) for step in range(200)]))
    assert not is_noisy(noise(29))
    assert not is_noisy(Curve())


def test_the_recent_mean_is_of_the_last_points():
    assert recent_mean(curve([(1, 4.0)])) == 4.0
    assert recent_mean(curve([(step, float(step > 90)) for step in range(1, 101)])) == 1.0
