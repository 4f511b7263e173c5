"""The numbers behind every sample: uniform, independent, and the same for ever."""

import numpy as np
import pytest

from cleangpt2.sampler.noise import generator


def first_numbers(n, **varied):
    """The first number of each source when one part of its key runs over 0 to n - 1."""
    (name,) = varied
    make = {
        "seed": lambda i: generator(i, [5, 6], 0),
        "sample": lambda i: generator(1, [5, 6], i),
        "prompt": lambda i: generator(1, [i], 0),
        "last_token": lambda i: generator(1, [7, 8, i], 0),
    }[name]
    return np.array([make(i).random() for i in range(n)])


def distance_from_uniform(numbers):
    """Kolmogorov and Smirnov's D times the root of n; above 1.95 once in a thousand."""
    n = len(numbers)
    ordered = np.sort(numbers)
    above = np.arange(1, n + 1) / n - ordered
    below = ordered - np.arange(n) / n
    return max(above.max(), below.max()) * np.sqrt(n)


@pytest.mark.parametrize("varied", ["seed", "sample", "prompt", "last_token"])
def test_numbers_are_uniform_whatever_part_of_the_key_varies(varied):
    numbers = first_numbers(4000, **{varied: True})
    assert distance_from_uniform(numbers) < 1.95
    assert numbers.min() >= 0 and numbers.max() < 1


def test_numbers_are_uniform_over_the_steps_of_one_sample():
    assert distance_from_uniform(generator(3, [1, 2], 0).random(20_000)) < 1.95


def pairs():
    """Numbers that stand beside each other: in seed, sample, prompt and step."""
    steps = generator(1, [5, 6], 0).random(4001)
    yield "step", steps[:-1], steps[1:]
    for varied in ("seed", "sample", "prompt", "last_token"):
        numbers = first_numbers(4001, **{varied: True})
        yield varied, numbers[:-1], numbers[1:]
    many = [generator(seed, [9], 0).random(2) for seed in range(4000)]
    yield "steps of many seeds", *np.array(many).T


@pytest.mark.parametrize(
    ("name", "left", "right"), list(pairs()), ids=lambda x: x if isinstance(x, str) else ""
)
def test_neighbours_are_independent(name, left, right):
    n = len(left)
    assert abs(np.corrcoef(left, right)[0, 1]) < 4 / np.sqrt(n)
    # Chi-square over 8 x 8 cells: 63 degrees of freedom, deviation sqrt(126).
    counts, _, _ = np.histogram2d(left, right, bins=8, range=[[0, 1], [0, 1]])
    statistic = ((counts - n / 64) ** 2 / (n / 64)).sum()
    assert 63 - 4 * np.sqrt(126) < statistic < 63 + 4 * np.sqrt(126)


def grid(source, n=12):
    """Numbers over seeds, prompts, samples and steps: (n, n, n, n)."""
    return np.array(
        [
            [
                [source(seed, [7, last], sample).random(n) for sample in range(n)]
                for last in range(n)
            ]
            for seed in range(n)
        ]
    )


def deviation(counts):
    """Chi-square of counts that should be equal, as a standard normal deviate."""
    expected, free = counts.sum() / counts.size, counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - free) / np.sqrt(2 * free)


def worst_deviation(numbers, axis, lag=1):
    """How far the numbers, and pairs `lag` apart along one axis, are from uniform."""
    left, right = (
        np.take(numbers, range(start, numbers.shape[axis] - lag + start), axis).ravel()
        for start in (0, lag)
    )
    pairs, _, _ = np.histogram2d(left, right, bins=10, range=[[0, 1], [0, 1]])
    alone, _ = np.histogram(numbers, bins=64, range=(0, 1))
    correlation = np.corrcoef(left, right)[0, 1] * np.sqrt(len(left))
    return max(abs(deviation(pairs)), abs(deviation(alone)), abs(correlation))


@pytest.mark.parametrize("lag", [1, 2, 5])
@pytest.mark.parametrize("axis", range(4), ids=["seed", "prompt", "sample", "step"])
def test_neighbours_in_a_grid_of_all_four_are_independent(axis, lag):
    numbers = grid(generator)
    assert worst_deviation(numbers, axis, lag) < 4
    assert worst_deviation(numbers * 2**30 % 1, axis, lag) < 4  # the last bits too


@pytest.mark.parametrize(
    ("careless", "axis"),
    [
        (lambda seed, prompt, sample: np.random.Generator(np.random.Philox(seed + sample)), 1),
        (lambda seed, prompt, sample: Stripes(seed + prompt[-1] / 7 + sample / 5), 3),
        (lambda seed, prompt, sample: Stripes(generator(seed, prompt, sample).random()), 3),
    ],
)
def test_the_measures_above_notice_careless_numbers(careless, axis):
    assert worst_deviation(grid(careless), axis) > 20


class Stripes:
    """Evenly spread numbers, each a fixed way from the last: uniform, and not independent."""

    def __init__(self, start):
        self.start = start

    def random(self, n):
        return (self.start + np.arange(n) * 0.618) % 1


def test_longer_runs_begin_with_shorter_ones():
    assert generator(1, [5], 2).random(50)[:7].tolist() == generator(1, [5], 2).random(7).tolist()


def test_drawing_one_by_one_gives_what_drawing_at_once_gives():
    source = generator(1, [5], 2)
    assert [source.random() for _ in range(9)] == generator(1, [5], 2).random(9).tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, [1, 2], 0), (1, [1, 2], 1)),
        ((1, [1, 2], 0), (2, [1, 2], 0)),
        ((1, [1, 2], 0), (1, [2, 1], 0)),
        ((1, [1], 0), (1, [1, 0], 0)),
        ((1, [2, 3], 0), (1, [3], 2)),
        ((2, [1], 3), (3, [1], 2)),
        ((1, [1, 2], 3), (1, [3], 0)),
        ((1, [0x0102], 0), (1, [0x01, 0x02], 0)),
        ((1 << 32, [1], 0), (0, [1], 1)),
    ],
)
def test_no_two_keys_share_their_numbers(one, other):
    assert generator(*one).random(4).tolist() != generator(*other).random(4).tolist()


def test_the_whole_range_of_seeds_counts():
    sources = [generator(seed, [1], 0).random() for seed in (0, 2**32, 2**63, 2**64 - 1)]
    assert len(set(sources)) == 4


@pytest.mark.parametrize(
    ("key", "numbers"),
    [
        ((1, [50256], 0), [0.9795340034091148, 0.9479619886429728, 0.020638851031623773]),
        ((2**64 - 1, [15496, 995], 3), [0.4262463851441819, 0.528254539000505, 0.6748431748117661]),
    ],
)
def test_a_seed_gives_the_same_story_for_ever(key, numbers):
    assert generator(*key).random(3).tolist() == numbers
