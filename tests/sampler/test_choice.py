"""Drawing inverts the distribution function, and tells what else was likely."""

import math

import pytest
import torch

from cleangpt2.sampler.choice import draw, likeliest

EDGES = [0.0, 5e-324, 0.5, math.nextafter(1.0, 0.0)]


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("u", EDGES)
@pytest.mark.parametrize("allowed", [[0], [5], [9], [0, 9], [3, 4], [1, 8]], ids=str)
def test_a_token_without_probability_is_never_drawn(u, allowed):
    logits = torch.full((1, 10), -torch.inf)
    logits[0, allowed] = torch.randn(len(allowed))
    assert draw(logits.softmax(-1), numbers(u)).item() in allowed


@pytest.mark.parametrize("u", EDGES)
def test_a_probability_that_underflows_is_never_drawn(u):
    logits = torch.tensor([[-500.0, 0.0, -500.0]])
    assert draw(logits.softmax(-1), numbers(u)).item() == 1


def test_the_ends_of_the_unit_interval_draw_the_first_and_the_last():
    odds = torch.zeros(2, 50257).softmax(-1)
    assert draw(odds, numbers(0.0, math.nextafter(1.0, 0.0))).tolist() == [0, 50256]


def test_drawing_inverts_the_distribution_function():
    odds = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    u = numbers(0.0, 0.0999, 0.1001, 0.2999, 0.3001, 0.5999, 0.6001, 0.9999)
    assert draw(odds.expand(len(u), -1), u).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_likeliest_come_first_and_each_row_has_its_own():
    logprobs = torch.tensor([[0.2, 0.7, 0.1], [0.5, 0.1, 0.4]]).log()
    first, second = likeliest(logprobs, 2)
    assert [token.id for token in first] == [1, 0]
    assert [token.id for token in second] == [0, 2]
    assert [token.logprob for token in second] == pytest.approx([math.log(0.5), math.log(0.4)])


def test_what_is_impossible_is_no_alternative():
    logprobs = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]).log()
    assert [len(row) for row in likeliest(logprobs, 3)] == [1, 2]
    assert [len(row) for row in likeliest(logprobs, 99)] == [1, 2]


def test_without_a_wish_nothing_is_told():
    assert likeliest(torch.zeros(2, 3), 0) == [(), ()]
