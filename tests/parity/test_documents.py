"""Packed documents beside transformers' GPT-2: each alone, and packed there by its positions."""

import pytest
import torch

from cleangpt2.model.attention import PATHS
from cleangpt2.model.documents import document_numbers, document_positions
from tests.model.hard_weights import deviation, hard_model
from tests.parity.test_model import SMALL, TOLERANCE, random_ids
from tests.parity.twin import twin

EOS = 0
IDS = random_ids(2, 64, vocab_size=12)
DOCUMENTS = document_numbers(IDS, EOS)


@pytest.mark.parametrize("path", PATHS)
@torch.no_grad()
def test_each_packed_document_has_the_logits_that_transformers_gives_it_alone(path):
    model = hard_model(SMALL)
    other = twin(model)
    model.use_attention(path)
    logits = model(IDS, documents=DOCUMENTS)
    seen = set()
    for row in range(2):
        for number in DOCUMENTS[row].unique():
            here = DOCUMENTS[row] == number
            alone = other(IDS[row, here][None]).logits[0]
            assert deviation(logits[row, here], alone) < TOLERANCE
            seen.add(len(alone))
    assert min(seen) == 1
    assert max(seen) > 10


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_transformers_packs_them_by_positions_and_gets_the_same(attention):
    model = hard_model(SMALL)
    other = twin(model, attention=attention)
    positions = document_positions(DOCUMENTS)
    theirs = other(IDS, position_ids=positions, use_cache=False).logits
    assert deviation(model(IDS, documents=DOCUMENTS), theirs) < TOLERANCE
