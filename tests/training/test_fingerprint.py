import numpy as np
import pytest
import torch

from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training.fingerprint import WIDTH, WINDOWS, of_tokens, of_weights
from tests.training.runs import MODEL, TOKENS

LONG = np.random.default_rng(0).integers(60_000, size=3 * WINDOWS * WIDTH).astype(np.uint16)


@pytest.mark.parametrize("place", [0, 777, len(TOKENS) - 1])
def test_any_token_of_a_short_corpus_counts(place):
    other = TOKENS.copy()
    other[place] ^= 1
    assert of_tokens(other) != of_tokens(TOKENS)
    assert of_tokens(TOKENS).startswith(f"{len(TOKENS)} tokens, ")


@pytest.mark.parametrize(
    "other",
    [
        LONG[1:],
        LONG[:-1],
        np.roll(LONG, 1),
        np.append(np.delete(LONG, len(LONG) // 2), 7),
        np.append(np.delete(LONG, len(LONG) - WIDTH), 7),
    ],
    ids=["first", "last", "shifted", "middle", "end"],
)
def test_a_token_more_or_less_in_a_long_corpus_is_noticed(other):
    assert of_tokens(other) != of_tokens(LONG)


def test_how_tokens_are_stored_makes_no_difference():
    assert of_tokens(TOKENS.astype(np.uint32)) == of_tokens(TOKENS)


def test_empty_tokens_are_no_error():
    assert of_tokens(TOKENS[:0]).startswith("0 tokens")


def test_weights_are_told_apart_by_any_parameter():
    model = GPT2(MODEL)
    before = of_weights(model)
    assert of_weights(model) == before
    with torch.no_grad():
        model.h[1].mlp.c_proj.bias += 1e-3
    assert of_weights(model) != before
