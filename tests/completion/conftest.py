"""Models whose texts are known or any, shared by the tests of this room."""

import pytest
import torch

from tests.stubs import constant_model, random_model, small_tokenizer, successor_model


@pytest.fixture(scope="package")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="package")
def model(tokenizer):
    """Any model: in float64, so that no text hangs on float noise; with padded vocabulary."""
    return random_model(tokenizer.vocab_size + 20, n_positions=64, dtype=torch.float64)


@pytest.fixture(scope="package")
def alphabet(tokenizer):
    """Writes "bcdefg..." after "a": the ids of the bytes follow the alphabet."""
    return successor_model(tokenizer.vocab_size)


@pytest.fixture(scope="package")
def babbler(tokenizer):
    """Draws among the tokens that "the girl had a dog" is made of, whatever came before."""
    letters = set("the girl had a dog")
    logits = [-20.0] * tokenizer.vocab_size
    for token, id in tokenizer.vocabulary.ids.items():
        if set(token.decode(errors="replace")) <= letters:
            logits[id] = 0.0
    return constant_model(logits, n_positions=64)
