import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleangpt2.data.permutation import permute


@given(n=st.integers(1, 600), seed=st.integers(0, 2**63), epoch=st.integers(0, 10))
def test_every_place_is_taken_once(n, seed, epoch):
    assert sorted(permute(np.arange(n), n, seed, epoch)) == list(range(n))


@given(n=st.integers(1, 2**45), data=st.data())
def test_a_place_does_not_depend_on_the_others_asked_for(n, data):
    places = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)))
    together = permute(places, n, 7, 0)
    alone = [permute(places[i : i + 1], n, 7, 0)[0] for i in range(len(places))]
    assert together.tolist() == alone
    assert ((together >= 0) & (together < n)).all()


def test_another_key_is_another_order():
    orders = {
        tuple(permute(np.arange(50), 50, *key)) for key in [(0, 0), (0, 1), (1, 0), (1 << 32, 0)]
    }
    assert len(orders) == 4


@pytest.mark.parametrize("n", [7, 10, 37])
def test_where_things_go_is_uniform(n):
    rounds = 800
    orders = np.array([permute(np.arange(n), n, seed, 0) for seed in range(rounds)])
    counts = np.array([np.bincount(column, minlength=n) for column in orders.T])
    expected = rounds / n
    # Chi-square with (n - 1)**2 degrees of freedom, at about six standard deviations.
    freedom = (n - 1) ** 2
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert abs(statistic - freedom) < 6 * np.sqrt(2 * freedom)


def test_neighbours_are_parted():
    order = permute(np.arange(10_000), 10_000, 1, 0)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(np.arange(10_000), order)[0, 1]) < 0.05
