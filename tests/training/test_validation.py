import math

import pytest
import torch

from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.training.validation import held_out_bits_per_byte

TEXTS = ["low low lower", "ü", "a much longer text that leaves the context of sixteen tokens"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 262)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    shape = GPT2Config(
        vocab_size=tokenizer.vocab_size, n_positions=16, n_embd=16, n_layer=1, n_head=2
    )
    model = GPT2(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model


def test_equals_one_document_after_the_other(model, tokenizer):
    bits = 0.0
    model.eval()
    for text in TEXTS:
        row = [tokenizer.eos_id, *tokenizer.encode(text), tokenizer.eos_id]
        for start in range(0, len(row) - 1, 16):
            window = row[start : start + 17]
            logprobs = model(window[:-1]).log_softmax(-1)
            bits -= sum(logprobs[i, id].item() for i, id in enumerate(window[1:])) / math.log(2)
    expected = bits / sum(len(text.encode()) for text in TEXTS)
    for B in (1, 2, 16):
        assert held_out_bits_per_byte(model, tokenizer, TEXTS, B=B) == pytest.approx(
            expected, rel=1e-6
        )


def test_dropout_is_off_and_the_mode_comes_back(model, tokenizer):
    model.train()
    first, second = (held_out_bits_per_byte(model, tokenizer, TEXTS) for _ in range(2))
    assert first == second
    assert model.training


def test_a_model_that_knows_nothing_needs_log_v_bits_a_token(model, tokenizer):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    tokens = sum(len(tokenizer.encode(text)) + 1 for text in TEXTS)
    n_bytes = sum(len(text.encode()) for text in TEXTS)
    expected = tokens * math.log2(tokenizer.vocab_size) / n_bytes
    assert held_out_bits_per_byte(model, tokenizer, TEXTS) == pytest.approx(expected, rel=1e-6)
