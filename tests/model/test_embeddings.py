import pytest
import torch

from cleangpt2.model.config import GPT2Config
from cleangpt2.model.embeddings import with_tokens
from cleangpt2.model.gpt2 import GPT2

SHAPE = {"n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2}


def model(rows, **settings):
    return GPT2(GPT2Config(vocab_size=rows, **SHAPE, **settings)).eval()


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_new_tokens_are_the_mean_of_the_old_ones_and_change_nothing_else(tied):
    old = model(10, tie_word_embeddings=tied)
    new = with_tokens(old, 10, 12)
    assert new.config.vocab_size == 12 and not new.training
    for weight, before in (
        (new.wte.weight, old.wte.weight),
        (new.output_weight, old.output_weight),
    ):
        assert torch.equal(weight[:10], before)
        for row in weight[10:]:
            torch.testing.assert_close(row, before.mean(dim=0))
    ids = torch.randint(10, (2, 5))
    torch.testing.assert_close(new(ids)[..., :10], old(ids))
    # as likely as tokens are on average, in logits
    torch.testing.assert_close(new(ids)[..., 10], old(ids).mean(dim=-1))


@torch.no_grad()
def test_rows_of_padding_are_used_before_new_ones_are_made():
    old = model(16)
    new = with_tokens(old, 10, 12)
    assert new.config.vocab_size == 16
    torch.testing.assert_close(new.wte.weight[11], old.wte.weight[:10].mean(dim=0))
    assert torch.equal(new.wte.weight[12:], old.wte.weight[12:])


def test_without_new_tokens_it_is_the_same_model():
    old = model(10)
    assert with_tokens(old, 10, 10) is old
