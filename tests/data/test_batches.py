import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cleangpt2.data.batches import Batches, pack
from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.corpus import Corpus
from cleangpt2.data.prepare import prepare
from cleangpt2.errors import ConfigError, DataError
from cleangpt2.tokenizer import Tokenizer

TOKENS = np.arange(1000, dtype=np.uint16)


def test_documents_are_parted_by_end_of_text():
    tokenizer = Tokenizer.train(["ab ab ab"], 258)
    eos = tokenizer.eos_id
    row = pack(["a", "b<|endoftext|>", ""], tokenizer)
    assert row.dtype == np.uint16
    # The text of a special token in a document is plain text.
    assert row.tolist() == [eos, 64, eos, *tokenizer.encode("b<|endoftext|>"), eos, eos]
    assert pack([], tokenizer).tolist() == [eos]


def test_targets_are_the_inputs_one_further():
    inputs, targets = Batches(TOKENS, B=3, T=10, seed=0)(5)
    assert inputs.shape == targets.shape == (3, 10)
    assert torch.equal(targets, inputs + 1)


@given(
    tokens=st.integers(20, 500),
    B=st.integers(1, 5),
    T=st.integers(1, 20),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 3),
)
def test_an_epoch_trains_on_every_token_once(tokens, B, T, seed, epoch):
    if (tokens - 1) // T - 1 < B:
        return
    batches = Batches(np.arange(tokens, dtype=np.uint16), B=B, T=T, seed=seed)
    windows = batches.windows
    steps = range(epoch * windows // B, -(-(epoch + 1) * windows // B))
    rows = torch.cat([batches(step)[1] for step in steps])
    first = epoch * windows - steps[0] * B  # where the epoch begins in its first batch
    targets = rows[first : first + windows].flatten().sort().values
    # One run of consecutive tokens: none twice, none left out but fewer than T at either end.
    assert torch.equal(targets, torch.arange(targets[0], targets[0] + windows * T))
    assert targets[0] <= T and tokens - 1 - targets[-1] < 2 * T


def test_a_batch_is_a_pure_function_of_seed_and_step():
    tokens = np.random.default_rng(0).integers(50000, size=5000, dtype=np.uint16)
    a, b = Batches(tokens, B=4, T=16, seed=3), Batches(tokens, B=4, T=16, seed=3)
    late = [b(step)[0] for step in (500, 2, 77)]  # b never saw the steps before
    assert all(torch.equal(a(step)[0], x) for step, x in zip((500, 2, 77), late, strict=True))
    assert not torch.equal(a(2)[0], Batches(tokens, B=4, T=16, seed=4)(2)[0])


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("micro_batches", [1, 2, 3])
def test_all_shares_together_are_the_batch(world_size, micro_batches):
    batches = Batches(TOKENS, B=24, T=10, seed=1)
    for step in (0, 3, 4, 40):  # the fourth and fifth hold the end of an epoch
        shares = [
            batches(step, rows)
            for rank in range(world_size)
            for rows in batches.share(rank, world_size, micro_batches)
        ]
        assert len(shares) == world_size * micro_batches
        whole = batches(step)
        for part in (0, 1):
            assert torch.equal(torch.cat([share[part] for share in shares]), whole[part])


@pytest.mark.parametrize(("world_size", "micro_batches"), [(3, 1), (1, 16), (2, 3)])
def test_a_batch_that_cannot_be_shared_evenly_is_refused(world_size, micro_batches):
    parts = world_size * micro_batches
    with pytest.raises(ConfigError, match=f"batch of 8 .* take a multiple of {parts}"):
        Batches(TOKENS, B=8, T=10, seed=0).share(0, world_size, micro_batches)


def test_epochs_differ_in_order_and_in_where_documents_are_cut():
    batches = Batches(np.arange(1001, dtype=np.uint16), B=1, T=100, seed=0)
    first, second = (
        [batches(step)[0][0, 0].item() for step in range(epoch * 9, epoch * 9 + 9)]
        for epoch in (0, 1)
    )
    assert len({start % 100 for start in first}) == 1
    assert first[0] % 100 != second[0] % 100
    assert np.argsort(first).tolist() != np.argsort(second).tolist()


def test_the_smallest_corpus_is_just_enough():
    tokens = np.arange(31, dtype=np.uint16)
    inputs, _ = Batches(tokens, B=2, T=10, seed=0)(0)
    assert inputs.shape == (2, 10)
    with pytest.raises(DataError, match=r"30 tokens are too few .* at least 31"):
        Batches(tokens[:-1], B=2, T=10, seed=0)


def test_shards_give_the_batches_of_the_same_text_in_memory(corpus, tokenizer, tmp_path):
    config = PrepareConfig(validation=0, shard_tokens=777)
    prepare([str(corpus)], tokenizer, tmp_path / "out", config)
    row = Corpus(tmp_path / "out").train
    shards = Batches(row, B=8, T=64, seed=5)
    memory = Batches(np.array(row[:]), B=8, T=64, seed=5)
    for step in (0, 1, 30, 1000):
        assert torch.equal(shards(step)[0], memory(step)[0])
