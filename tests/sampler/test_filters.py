"""Filters keep the tokens that their definition names, also at ties and extremes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cleangpt2.sampler import filters

INF = math.inf


def kept(logits):
    """The ids that are still allowed in the only row."""
    return torch.nonzero(logits[0] > -INF)[:, 0].tolist()


def nucleus(logits, p):
    """Top-p by its definition: one token after the other, likeliest first, until p is reached."""
    probabilities = torch.softmax(logits.double(), dim=-1)[0].tolist()
    order = sorted(range(len(probabilities)), key=lambda i: (-probabilities[i], i))
    reached, ids = 0.0, []
    for id in order:
        if reached >= p:
            break
        ids.append(id)
        reached += probabilities[id]
    return sorted(ids)


@pytest.mark.parametrize("t", [0.1, 0.7, 1.0, 3.0])
def test_temperature_divides_the_logits(t):
    logits = torch.randn(4, 50) * 5
    torch.testing.assert_close(
        filters.temperature(logits, t).softmax(-1), (logits / t).softmax(-1), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("t", [1e-30, 1e-10, 1e30])
def test_an_extreme_temperature_overflows_nothing(t):
    logits = torch.tensor([[1e4, -1e4, 9e3, -INF]])
    probabilities = filters.temperature(logits, t).softmax(-1)[0].tolist()
    expected = [1.0, 0.0, 0.0, 0.0] if t < 1 else [1 / 3, 1 / 3, 1 / 3, 0.0]
    assert probabilities == pytest.approx(expected)


def test_top_k_keeps_the_k_largest():
    logits = torch.tensor([[1.0, 5.0, 3.0, 4.0, 2.0]])
    assert [kept(filters.top_k(logits, k)) for k in (1, 2, 3)] == [[1], [1, 3], [1, 2, 3]]


@pytest.mark.parametrize("k", [5, 6, 1000])
def test_top_k_of_all_tokens_or_more_forbids_none(k):
    logits = torch.randn(2, 5)
    assert torch.equal(filters.top_k(logits, k), logits)


def test_top_k_keeps_ties_with_the_last_it_keeps():
    assert kept(filters.top_k(torch.tensor([[2.0, 1.0, 2.0, 3.0, 0.0]]), 2)) == [0, 2, 3]


@pytest.mark.parametrize(
    ("p", "ids"), [(1e-9, [2]), (0.39, [2]), (0.41, [0, 2]), (0.69, [0, 2]), (0.71, [0, 1, 2])]
)
def test_top_p_keeps_the_token_that_reaches_p(p, ids):
    logits = torch.tensor([[0.3, 0.2, 0.4, 0.1]]).log()
    assert kept(filters.top_p(logits, p)) == ids


def test_top_p_of_one_forbids_none():
    logits = torch.randn(2, 5) * 50
    assert torch.equal(filters.top_p(logits, 1.0), logits)


@pytest.mark.parametrize(("p", "n"), [(0.1, 1), (0.25, 2), (0.5, 4), (0.51, 5), (0.99, 8)])
def test_of_equally_likely_tokens_top_p_keeps_the_first(p, n):
    assert kept(filters.top_p(torch.zeros(1, 8), p)) == list(range(n))


def test_ties_at_the_boundary_leave_the_likelier_tokens_in():
    logits = torch.tensor([[0.2, 0.2, 0.4, 0.2]]).log()
    assert kept(filters.top_p(logits, 0.5)) == [0, 2]


@pytest.mark.parametrize("scale", [0.0, 0.01, 3.0])
@pytest.mark.parametrize("p", [0.2, 0.9, 0.999])
def test_top_p_is_right_where_a_thousand_tokens_do_not_reach_p(scale, p):
    logits = torch.randn(1, 3000).mul(scale)
    assert kept(filters.top_p(logits, p)) == nucleus(logits, p)


def test_a_row_is_filtered_the_same_whatever_the_others_need():
    flat, peaked = torch.zeros(1, 3000), torch.randn(1, 3000) * 9
    both = filters.top_p(torch.cat([flat, peaked]), 0.9)
    assert torch.equal(both[:1], filters.top_p(flat, 0.9))
    assert torch.equal(both[1:], filters.top_p(peaked, 0.9))


# Whole numbers make ties; the odd p keep sums of their probabilities away from p.
@given(
    st.lists(st.sampled_from([-INF, -3.0, 0.0, 1.0, 2.0, 2.5]), min_size=1, max_size=30),
    st.sampled_from([0.0137, 0.2511, 0.5013, 0.7771, 0.9091, 0.98765]),
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(values, p):
    if max(values) == -INF:
        return
    logits = torch.tensor([values])
    filtered = filters.top_p(logits, p)
    assert kept(filtered) == [id for id in nucleus(logits, p) if values[id] > -INF]
    assert torch.equal(filtered[filtered > -INF], logits[filtered > -INF])


@pytest.mark.parametrize(
    ("p", "ids"), [(0.0, [0, 1, 2, 3]), (0.26, [0, 1, 2]), (0.6, [0, 2]), (0.76, [2]), (1.0, [2])]
)
def test_min_p_keeps_tokens_at_least_so_many_times_as_likely_as_the_likeliest(p, ids):
    logits = torch.tensor([[0.3, 0.2, 0.4, 0.1]]).log()
    assert kept(filters.min_p(logits, p)) == ids


def test_min_p_follows_the_distribution():
    sure, unsure = torch.tensor([[5.0, 0.0, 0.0, 0.0]]), torch.tensor([[0.5, 0.0, 0.0, 0.0]])
    assert kept(filters.min_p(sure, 0.1)) == [0]
    assert kept(filters.min_p(unsure, 0.1)) == [0, 1, 2, 3]


def typical_set(logits, p):
    """Typical sampling by its definition; tokens as far from the entropy as the last stay too."""
    probabilities = torch.softmax(logits.double(), dim=-1)[0].tolist()
    surprise = [-math.log(q) if q > 0 else INF for q in probabilities]
    entropy = sum(q * s for q, s in zip(probabilities, surprise, strict=True) if q > 0)
    far = [abs(s - entropy) for s in surprise]
    reached, last = 0.0, 0.0
    for id in sorted(range(len(far)), key=far.__getitem__):
        if reached >= p:
            break
        last = far[id]
        reached += probabilities[id]
    return [id for id, distance in enumerate(far) if distance <= last + 1e-6 and distance < INF]


@given(
    st.lists(st.sampled_from([-INF, -3.0, 0.0, 1.0, 2.0, 2.5]), min_size=1, max_size=30),
    st.sampled_from([0.0137, 0.2511, 0.5013, 0.7771, 0.9091, 0.98765]),
)
def test_typical_keeps_the_least_surprisingly_surprising_that_reach_p(values, p):
    if max(values) == -INF:
        return
    logits = torch.tensor([values])
    assert kept(filters.typical(logits, p)) == typical_set(logits, p)


def test_typical_may_forbid_the_likeliest():
    logits = torch.tensor([[0.4, *[0.06] * 10]]).log()  # entropy 2.06: 0.92 is too little surprise
    assert kept(filters.typical(logits, 0.5)) == list(range(1, 11))


def test_typical_of_one_forbids_none():
    logits = torch.randn(2, 5) * 50
    assert torch.equal(filters.typical(logits, 1.0), logits)


def test_forbidden_tokens_stay_forbidden():
    logits = torch.tensor([[-INF, 2.0, -INF, 1.0, 0.0]])
    for filtered in (
        filters.temperature(logits, 0.5),
        filters.top_k(logits, 4),
        filters.top_p(logits, 0.9999),
        filters.min_p(logits, 1e-9),
        filters.typical(logits, 0.9999),
        filters.vocabulary(logits, 4),
    ):
        assert not {0, 2} & set(kept(filtered))
        assert not filtered.isnan().any()


@pytest.mark.parametrize(
    "name", ["temperature", "top_k", "top_p", "min_p", "typical", "vocabulary"]
)
def test_the_given_logits_are_left_alone(name):
    logits = torch.randn(2, 9)
    before = logits.clone()
    getattr(filters, name)(logits, 3 if name in ("top_k", "vocabulary") else 0.5)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("size", [7, 8, 99])
def test_a_vocabulary_as_large_as_the_embedding_forbids_none(size):
    logits = torch.randn(2, 7)
    assert torch.equal(filters.vocabulary(logits, size), logits)


def test_float32_extremes_give_numbers():
    big = torch.finfo(torch.float32).max
    logits = torch.tensor([[big, -big, 0.0, big / 2]])
    for filtered in (
        filters.top_k(logits, 2),
        filters.top_p(logits, 0.9),
        filters.min_p(logits, 0.1),
        filters.typical(logits, 0.9),
    ):
        assert filtered.softmax(-1)[0].tolist() == [1.0, 0.0, 0.0, 0.0]
