"""The cache saves work and never changes a result.

However the tokens of a row reach it, in whatever company and order, the logits are those of the
row read alone in one pass, to 1e-5 of the largest magnitude.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cleangpt2.errors import ContextLengthError, InputError
from cleangpt2.model.cache import KVCache
from cleangpt2.model.config import GPT2Config
from tests.model.hard_weights import deviation, hard_model

TOLERANCE = 1e-5
CONFIG = GPT2Config(vocab_size=97, n_positions=24, n_embd=32, n_layer=2, n_head=4)
MODEL = hard_model(CONFIG)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def new_cache(B: int, capacity: int | None = None) -> KVCache:
    return KVCache(CONFIG, B, like=MODEL.wte.weight, capacity=capacity)


def random_ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(97, shape, generator=torch.Generator().manual_seed(seed))


def padded(rows: list[torch.Tensor]) -> torch.Tensor:
    """Rows of one length; the padding is an ordinary token, which must not matter."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=13)


@pytest.mark.parametrize(
    "split", [[24], [1] * 24, [23, 1], [1, 23], [3, 1, 7, 13], [8, 8, 8], [2, 22]]
)
def test_reading_in_parts_gives_the_logits_of_reading_at_once(split):
    ids = random_ids(3, 24)
    cache = new_cache(3)
    parts = torch.cat([MODEL(part, cache) for part in ids.split(split, dim=1)], dim=1)
    assert deviation(parts, MODEL(ids)) < TOLERANCE
    assert cache.lengths == [24, 24, 24]


def test_a_sequence_without_batch_dimension_has_a_cache_of_one():
    ids = random_ids(9)
    cache = new_cache(1)
    parts = torch.cat([MODEL(part, cache) for part in ids.split([4, 1, 4])])
    assert deviation(parts, MODEL(ids)) < TOLERANCE


@pytest.mark.parametrize("lengths", [[5, 5, 5], [1, 9, 4], [9, 1, 1], [3, 2, 9]])
def test_padded_prompts_go_on_as_if_each_were_alone(lengths):
    prompts = [random_ids(length, seed=length) for length in lengths]
    tails = random_ids(3, 12, seed=99)
    cache = new_cache(3)
    MODEL(padded(prompts), cache)
    cache.set_lengths(lengths)
    chunks = torch.cat([MODEL(part, cache) for part in tails.split([1, 1, 4, 1, 5], dim=1)], dim=1)
    for prompt, tail, logits in zip(prompts, tails, chunks, strict=True):
        alone = MODEL(torch.cat([prompt, tail]))[len(prompt) :]
        assert deviation(logits, alone) < TOLERANCE


def test_padding_changes_no_logits_of_the_real_tokens():
    prompts = [random_ids(length, seed=length) for length in (2, 7, 5)]
    logits = MODEL(padded(prompts), new_cache(3))
    for prompt, row in zip(prompts, logits, strict=True):
        assert deviation(row[: len(prompt)], MODEL(prompt)) < TOLERANCE


def test_uneven_prompts_may_be_read_in_chunks_too():
    """Each chunk is padded and cut back, so that rows of the batch end at different chunks."""
    prompts = [random_ids(length, seed=length) for length in (11, 3, 8)]
    cache = new_cache(3)
    last = {}
    for start in range(0, 11, 4):
        chunk = [prompt[start : start + 4] for prompt in prompts]
        logits = MODEL(padded([*chunk, random_ids(4)])[:3], cache)
        cache.set_lengths([min(len(prompt), start + 4) for prompt in prompts])
        last |= {b: logits[b, len(ids) - 1] for b, ids in enumerate(chunk) if len(ids)}
    for b, prompt in enumerate(prompts):
        assert deviation(last[b], MODEL(prompt)[-1]) < TOLERANCE


@pytest.mark.parametrize("rows", [[2, 1, 0], [0], [1, 1, 1], [2, 0, 2, 1], [0, 1, 2]])
def test_select_reorders_copies_and_drops_rows(rows):
    lengths = [2, 7, 4]
    prompts = [random_ids(length, seed=length) for length in lengths]
    cache = new_cache(3)
    MODEL(padded(prompts), cache)
    cache.set_lengths(lengths)
    cache.select(rows)
    assert len(rows) == cache.B
    for step in range(2):  # copies must not write into each other
        ids = random_ids(len(rows), 3, seed=step)
        logits = MODEL(ids, cache)
        prompts = [torch.cat([prompts[row], new]) for row, new in zip(rows, ids, strict=True)]
        for prompt, row in zip(prompts, logits, strict=True):
            assert deviation(row, MODEL(prompt)[-3:]) < TOLERANCE
        rows = list(range(len(rows)))


def test_forgotten_tokens_leave_no_trace():
    """A speculative decoder reads drafts, rejects some and goes on elsewhere."""
    prompt, draft, other = random_ids(2, 5), random_ids(2, 6, seed=1), random_ids(2, 3, seed=2)
    cache = new_cache(2)
    MODEL(prompt, cache)
    MODEL(draft, cache)
    cache.set_lengths([7, 5])  # row 0 accepts two drafts, row 1 none
    logits = MODEL(other, cache)
    for b, accepted in enumerate([2, 0]):
        sequence = torch.cat([prompt[b], draft[b, :accepted], other[b]])
        assert deviation(logits[b], MODEL(sequence)[-3:]) < TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_cache_has_the_data_type_of_the_weights(dtype):
    model = hard_model(CONFIG).to(dtype)
    cache = KVCache(CONFIG, 2, like=model.wte.weight)
    ids = random_ids(2, 10)
    parts = torch.cat([model(part, cache) for part in ids.split([6, 1, 3], dim=1)], dim=1)
    assert parts.dtype == cache.layers[0].k.dtype == dtype
    bound = TOLERANCE if dtype == torch.float64 else 0.1
    assert deviation(parts, model(ids)) < bound


def test_more_tokens_than_the_context_are_refused_and_nothing_is_changed():
    ids = random_ids(2, 24)
    cache = new_cache(2)
    MODEL(ids[:, :20], cache)
    with pytest.raises(ContextLengthError, match="25 tokens do not fit in the model's context of"):
        MODEL(random_ids(2, 5), cache)
    assert cache.lengths == [20, 20]
    assert deviation(MODEL(ids[:, 20:], cache), MODEL(ids)[:, 20:]) < TOLERANCE


def test_the_longest_row_decides_what_fits():
    cache = new_cache(2)
    MODEL(random_ids(2, 20), cache)
    cache.set_lengths([20, 3])
    with pytest.raises(ContextLengthError, match="25 tokens"):
        MODEL(random_ids(2, 5), cache)


def test_a_small_cache_names_its_own_limit():
    cache = new_cache(1, capacity=6)
    assert cache.layers[0].k.shape == (1, 4, 6, 8)
    MODEL(random_ids(1, 6), cache)
    with pytest.raises(ContextLengthError, match="7 tokens do not fit in a cache of 6"):
        MODEL(random_ids(1, 1), cache)


@pytest.mark.parametrize(("capacity", "reserved"), [(None, 24), (5, 5), (24, 24), (1000, 24)])
def test_no_more_is_reserved_than_asked_for_nor_than_the_context(capacity, reserved):
    assert new_cache(1, capacity=capacity).capacity == reserved


@pytest.mark.parametrize(("B", "rows"), [(1, 2), (2, 1), (3, 2)])
def test_another_number_of_rows_than_the_cache_holds_is_refused(B, rows):
    cache = new_cache(B)
    with pytest.raises(InputError, match=f"{rows} rows of ids for a cache of {B} sequences"):
        MODEL(random_ids(rows, 4), cache)
    assert cache.lengths == [0] * B


@pytest.mark.parametrize(
    ("like", "says"),
    [
        (torch.empty(0, device="meta"), "the cache is on meta, the model on cpu: make a new one"),
        (torch.empty(0, dtype=torch.float16), "holds torch.float16, the model torch.float32: make"),
    ],
)
def test_a_cache_of_another_device_or_data_type_is_refused_by_name(like, says):
    cache = KVCache(MODEL.config, B=1, like=like)
    with pytest.raises(InputError, match=says):
        MODEL(random_ids(1, 3), cache)
    assert cache.lengths == [0]


def test_under_autocast_a_cache_may_have_the_weights_type_or_autocasts():
    ids = random_ids(1, 3)
    for dtype in (torch.float32, torch.bfloat16):
        cache = KVCache(MODEL.config, B=1, like=torch.empty(0, dtype=dtype))
        with torch.autocast("cpu", torch.bfloat16):
            assert MODEL(ids, cache).isfinite().all()


def test_lengths_only_shrink():
    cache = new_cache(2)
    MODEL(random_ids(2, 4), cache)
    for wrong in ([4], [5, 4], [-1, 4]):
        with pytest.raises(AssertionError):
            cache.set_lengths(wrong)


READ = st.tuples(st.just("read"), st.integers(1, 5), st.integers(0, 2**16))
CUT = st.tuples(st.just("cut"), st.lists(st.floats(0, 1), min_size=4, max_size=4))
SELECT = st.tuples(st.just("select"), st.lists(st.integers(0, 3), min_size=1, max_size=4))


@settings(max_examples=40)
@given(st.integers(1, 4), st.lists(st.one_of(READ, READ, CUT, SELECT), min_size=1, max_size=12))
def test_any_sequence_of_operations_gives_what_each_row_gives_alone(B, operations):
    cache = new_cache(B)
    rows = [torch.empty(0, dtype=torch.long)] * B
    with torch.no_grad():
        for name, *args in operations:
            if name == "read":
                T, seed = args
                ids = random_ids(len(rows), T, seed=seed)
                if max(map(len, rows)) + T > CONFIG.n_positions:
                    with pytest.raises(ContextLengthError):
                        MODEL(ids, cache)
                    continue
                logits = MODEL(ids, cache)
                rows = [torch.cat(pair) for pair in zip(rows, ids, strict=True)]
                for row, ours in zip(rows, logits, strict=True):
                    assert deviation(ours, MODEL(row)[-T:]) < TOLERANCE
            elif name == "cut":
                lengths = [round(len(row) * share) for row, share in zip(rows, *args, strict=False)]
                cache.set_lengths(lengths)
                rows = [row[:length] for row, length in zip(rows, lengths, strict=True)]
            else:
                chosen = [row % len(rows) for row in args[0]]
                cache.select(chosen)
                rows = [rows[row] for row in chosen]
            assert cache.lengths == [len(row) for row in rows]
