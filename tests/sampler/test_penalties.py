"""Penalties look at what each row said, and at nothing else."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cleangpt2.sampler import penalties

INF = math.inf
V = 8
SEQUENCES = [[1], [2, 3, 2, 3, 2], [0, 0, 0, 0], [5, 6, 7, 5, 6]]  # of different lengths

EVERY = {
    "logit_bias": lambda x, ids: penalties.logit_bias(x, [(1, 2.0), (3, -INF)]),
    "repetition_penalty": lambda x, ids: penalties.repetition_penalty(x, ids, 1.7),
    "count_penalties": lambda x, ids: penalties.count_penalties(x, ids, 0.5, 0.25),
    "no_repeat_ngrams": lambda x, ids: penalties.no_repeat_ngrams(x, ids, 2),
    "banned": lambda x, ids: penalties.banned(x, ids, ((4,), (2, 3), (6, 5))),
    "too_short": lambda x, ids: penalties.too_short(x, ids, 3, [7]),
    "forced": lambda x, ids: penalties.forced(x, [len(row) if row[0] else None for row in ids]),
}


def forbidden(logits):
    """The forbidden ids of each row."""
    return [(row == -INF).nonzero()[:, 0].tolist() for row in logits]


@pytest.mark.parametrize("name", EVERY)
def test_a_row_does_not_depend_on_the_others(name):
    logits = torch.randn(4, V)
    together = EVERY[name](logits, SEQUENCES)
    for row, ids in enumerate(SEQUENCES):
        assert torch.equal(together[row : row + 1], EVERY[name](logits[row : row + 1], [ids]))
    assert not torch.equal(together, logits)


@pytest.mark.parametrize("name", EVERY)
def test_the_given_logits_are_left_alone(name):
    logits = torch.randn(4, V)
    before = logits.clone()
    EVERY[name](logits, SEQUENCES)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("name", EVERY)
def test_what_was_forbidden_stays_so_unless_it_is_forced(name):
    logits = torch.full((4, V), -INF)
    changed = EVERY[name](logits, SEQUENCES)
    assert not changed.isnan().any()
    assert (changed > -INF).sum() == (3 if name == "forced" else 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", EVERY)
def test_the_data_type_is_kept(name, dtype):
    assert EVERY[name](torch.randn(4, V).to(dtype), SEQUENCES).dtype == dtype


@given(st.lists(st.integers(0, 3), min_size=1, max_size=25), st.integers(1, 5))
def test_an_ngram_is_forbidden_exactly_where_it_would_come_twice(ids, n):
    changed = penalties.no_repeat_ngrams(torch.zeros(1, 4), [ids], n)
    said = {tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)}
    again = [id for id in range(4) if tuple([*ids, id][-n:]) in said]
    assert forbidden(changed) == [again]


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=6),
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=5),
)
def test_a_banned_sequence_is_never_completed_and_nothing_else_is_forbidden(ids, bans):
    changed = penalties.banned(torch.zeros(1, 3), [ids], tuple(map(tuple, bans)))
    completes = [id for id in range(3) if any([*ids, id][-len(ban) :] == ban for ban in bans)]
    assert forbidden(changed) == [completes]


@given(
    st.lists(st.lists(st.integers(0, 4), max_size=9), min_size=1, max_size=3),
    st.sampled_from([-1.5, 0.0, 0.5]),
    st.sampled_from([-0.5, 0.0, 2.0]),
)
def test_counts_are_punished_as_the_formula_says(responses, frequency, presence):
    logits = torch.arange(5.0).expand(len(responses), 5)
    changed = penalties.count_penalties(logits, responses, frequency, presence)
    for row, response in enumerate(responses):
        for id in range(5):
            count = response.count(id)
            expected = id - count * frequency - (count > 0) * presence
            assert changed[row, id].item() == pytest.approx(expected)


def test_a_token_is_punished_for_repetition_once():
    logits = torch.tensor([[4.0, -4.0, 4.0]])
    once = penalties.repetition_penalty(logits, [[0, 1]], 2.0)
    assert once.tolist() == [[2.0, -8.0, 4.0]]
    assert torch.equal(penalties.repetition_penalty(logits, [[0, 1, 0, 0, 1]], 2.0), once)


def test_a_forced_token_is_certain_even_where_it_was_forbidden():
    logits = torch.tensor([[1.0, -INF], [1.0, 2.0]])
    assert penalties.forced(logits, [1, None]).softmax(-1)[0].tolist() == [0.0, 1.0]


def test_many_bans_cost_a_row_no_walk_through_them(monkeypatch):
    bans = tuple((first, second) for first in range(50) for second in range(50))
    looked_up = []

    class Counting(dict):
        def get(self, key, default):
            looked_up.append(key)
            return dict.get(self, key, default)

    lasts = penalties._lasts(bans)
    monkeypatch.setattr(penalties, "_lasts", lambda _: Counting(lasts))
    changed = penalties.banned(torch.zeros(2, 60), [[1, 2], [55]], bans)
    assert forbidden(changed) == [list(range(50)), []]
    assert looked_up == [(2,), (55,)]
