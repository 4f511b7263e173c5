import numpy as np
import pytest
import torch

from cleangpt2.data.batches import Batches, pack
from cleangpt2.errors import DataError
from cleangpt2.tokenizer import Tokenizer


def test_documents_are_parted_by_end_of_text():
    tokenizer = Tokenizer.train(["ab ab ab"], 258)
    eos = tokenizer.eos_id
    row = pack(["a", "b<|endoftext|>"], tokenizer)
    assert row.dtype == np.uint16
    # The text of a special token in a document is plain text.
    assert row.tolist() == [eos, 64, eos, *tokenizer.encode("b<|endoftext|>"), eos]
    assert row.tolist().count(eos) == 3


def test_targets_are_the_inputs_one_further():
    inputs, targets = Batches(np.arange(1000, dtype=np.uint16), B=3, T=10, seed=0)(5)
    assert inputs.shape == targets.shape == (3, 10)
    assert torch.equal(targets, inputs + 1)


def test_an_epoch_trains_on_every_token_at_most_once():
    tokens = np.arange(1000, dtype=np.uint16)
    batches = Batches(tokens, B=7, T=10, seed=0)
    seen = torch.cat([batches(step)[1].flatten() for step in range(batches.steps_per_epoch)])
    assert len(seen.unique()) == len(seen) > 1000 - (7 + 2) * 10


def test_a_batch_is_a_pure_function_of_seed_and_step():
    tokens = np.random.default_rng(0).integers(50000, size=5000, dtype=np.uint16)
    a, b = Batches(tokens, B=4, T=16, seed=3), Batches(tokens, B=4, T=16, seed=3)
    late = [b(step)[0] for step in (500, 2, 77)]  # b never saw the steps before
    assert all(torch.equal(a(step)[0], x) for step, x in zip((500, 2, 77), late, strict=True))
    assert not torch.equal(a(2)[0], Batches(tokens, B=4, T=16, seed=4)(2)[0])


def test_epochs_differ_in_order_and_in_where_documents_are_cut():
    batches = Batches(np.arange(1001, dtype=np.uint16), B=1, T=100, seed=0)
    first, second = (
        [batches(step)[0][0, 0].item() for step in range(epoch * 9, epoch * 9 + 9)]
        for epoch in (0, 1)
    )
    assert len({start % 100 for start in first}) == 1
    assert first[0] % 100 != second[0] % 100


def test_the_smallest_corpus_is_just_enough():
    tokens = np.arange(31, dtype=np.uint16)
    inputs, _ = Batches(tokens, B=2, T=10, seed=0)(0)
    assert inputs.shape == (2, 10)
    with pytest.raises(DataError, match=r"30 tokens are too few .* at least 31"):
        Batches(tokens[:-1], B=2, T=10, seed=0)
