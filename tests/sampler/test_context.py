"""Reading through a cache and a window is reading what the window's definition says."""

import pytest
import torch

from cleangpt2.errors import ContextLengthError
from cleangpt2.model.cache import KVCache
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sampler.context import Context
from cleangpt2.sampler.decode import Decoding
from cleangpt2.sampler.noise import generator
from tests.stubs import probabilities, random_model

PROMPTS = [[1], list(range(8)), list(range(9)), [4, 5] * 10]


@pytest.fixture(scope="module")
def model():
    return random_model(dtype=torch.float64, n_positions=8)


def visible_from(length, n, mode):
    """Where the window starts, by its definition: token after token, forgetting when full."""
    start = 0
    for end in range(1, length + 1):
        if end - start > n:  # the new token does not fit
            start += 1 if mode == "slide" else n - n // 2
    return start


@torch.no_grad()
def full_forward(model, ids, mode):
    """The logits after the last token, with nothing kept from before."""
    start = visible_from(len(ids), model.config.n_positions, mode)
    return model(ids[start:])[-1].float()


def count_reads(monkeypatch, model):
    """A list that grows by the rows and the tokens a row of every forward."""
    reads, hidden = [], type(model).hidden

    def counted(self, ids, cache=None, **documents):
        reads.append(tuple(ids.shape))
        return hidden(self, ids, cache, **documents)

    monkeypatch.setattr(type(model), "hidden", counted)
    return reads


# ---- the windows --------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("mode", ["slide", "slide-fast"])
def test_where_a_window_starts_depends_on_the_length_alone(mode, n):
    context = Context(random_model(n_positions=n), past_context=mode)
    lengths = range(1, 5 * n + 2)
    assert [context.start(length) for length in lengths] == [
        visible_from(length, n, mode) for length in lengths
    ]


@pytest.mark.parametrize("n", [3, 7, 8])
def test_a_fast_window_shows_between_a_half_and_all_of_the_context(n):
    context = Context(random_model(n_positions=n), past_context="slide-fast")
    widths = {length - context.start(length) for length in range(n, 10 * n)}
    assert widths == set(range(n // 2 + 1, n + 1))


@pytest.mark.parametrize(("n", "num_samples"), [(1, 1), (2, 2), (3, 1), (8, 2)])
@pytest.mark.parametrize("mode", ["slide", "slide-fast"])
def test_windows_write_what_reading_them_anew_for_each_token_writes(mode, n, num_samples):
    # Rows are short, exactly full and far too long at first, so they outgrow the context at
    # different times.
    model = random_model(dtype=torch.float64, n_positions=n)
    config = SamplingConfig(seed=1, max_new_tokens=2 * n + 3, past_context=mode)
    decoding = Decoding(model, PROMPTS, config, num_samples=num_samples)
    while decoding.active:
        decoding.step()
    for row, ids in enumerate(decoding.sequences):
        prompt, sample = PROMPTS[row // num_samples], row % num_samples
        noise, text = generator(1, prompt, sample), list(prompt)
        while len(text) < len(prompt) + config.max_new_tokens:
            logits = full_forward(model, text, mode).double().numpy()
            text.append(int((probabilities(logits, config).cumsum() <= noise.random()).sum()))
        assert ids == text


@pytest.mark.parametrize("mode", ["slide", "slide-fast"])
def test_a_row_does_not_depend_on_when_the_others_outgrow_the_context(model, mode):
    config = SamplingConfig(seed=2, max_new_tokens=20, past_context=mode)

    def write(prompts, num_samples=1, finish=None):
        decoding = Decoding(model, prompts, config, num_samples=num_samples)
        while decoding.active:
            decoding.step()
            if finish is not None and len(decoding.sequences[finish]) == 12:
                decoding.finish(finish, "stop")
        return decoding.sequences

    together = write(PROMPTS)
    assert together == [write([prompt])[0] for prompt in PROMPTS]
    assert together == write(PROMPTS[::-1])[::-1]
    assert together == write(PROMPTS, num_samples=3)[::3]
    cut = write(PROMPTS, finish=1)
    assert cut[:1] + cut[2:] == together[:1] + together[2:]
    assert cut[1] == together[1][:12]


# ---- what they cost -----------------------------------------------------------------------


def tokens_read(monkeypatch, mode, new, n=16):
    model = random_model(n_positions=n)
    reads = count_reads(monkeypatch, model)
    config = SamplingConfig(seed=1, max_new_tokens=new, past_context=mode)
    decoding = Decoding(model, [[1]], config)
    while decoding.active:
        decoding.step()
    return sum(rows * tokens for rows, tokens in reads)


def test_inside_the_context_each_token_is_read_once(monkeypatch):
    assert tokens_read(monkeypatch, "slide-fast", 16) == 16
    assert tokens_read(monkeypatch, "stop", 15) == 15


def test_an_exact_window_reads_the_whole_context_for_each_token(monkeypatch):
    assert tokens_read(monkeypatch, "slide", 116) == 16 + 100 * 16


def test_a_fast_window_reads_one_token_more_for_each_new_one(monkeypatch):
    # 20 times 8 tokens are forgotten and the 8 that stay are read again.
    assert tokens_read(monkeypatch, "slide-fast", 16 + 20 * 8) == 16 + 20 * (8 + 8)


def test_a_prompt_is_read_once_for_all_its_samples_and_copies(monkeypatch, model):
    reads = count_reads(monkeypatch, model)
    decoding = Decoding(
        model, [[1, 2], [3], [1, 2]], SamplingConfig(max_new_tokens=3, seed=1), num_samples=2
    )
    while decoding.active:
        decoding.step()
    assert reads == [(2, 2), (6, 1), (6, 1)]
    assert decoding.sequences[:2] == decoding.sequences[4:]


def test_no_more_memory_is_reserved_than_will_be_read(model):
    context = Context(model, capacity=5)
    context.logits([[1, 2]])
    assert context._cache.capacity == 5
    decoding = Decoding(model, [[1, 2], [3]], SamplingConfig(max_length=4))
    decoding.step()
    assert decoding._context._cache.capacity == 3
    endless = Decoding(model, [[1]], SamplingConfig(max_new_tokens=10**12, past_context="slide"))
    endless.step()
    assert endless._context._cache.capacity == 8


def test_the_cache_is_given_back_once_no_row_uses_it(model):
    context = Context(model, past_context="slide")
    context.logits([list(range(8)), list(range(9))])
    assert context._cache.B == 1
    context.logits([list(range(9)), list(range(10))])
    assert context._cache is None


# ---- texts that part and change places ----------------------------------------------------


@pytest.mark.parametrize("mode", ["slide", "slide-fast"])
def test_texts_may_go_on_from_any_text_of_the_last_call(model, mode):
    source = torch.Generator().manual_seed(1)
    texts = [[1], [2, 3], [4, 5]]
    context, parents = Context(model, past_context=mode), None
    for _ in range(20):
        expected = torch.stack([full_forward(model, ids, mode) for ids in texts])
        torch.testing.assert_close(context.logits(texts, parents), expected, rtol=0, atol=1e-5)
        width = int(torch.randint(1, 5, (), generator=source))
        parents = torch.randint(len(texts), (width,), generator=source).tolist()
        texts = [[*texts[parent], (7 * parent + i) % 61] for i, parent in enumerate(parents)]


def test_a_text_that_may_not_slide_is_refused_when_it_outgrows_the_context(model):
    context = Context(model)
    context.logits([list(range(8))])
    with pytest.raises(ContextLengthError, match="9 tokens do not fit in the model's context of 8"):
        context.logits([list(range(9))])


@torch.no_grad()
def test_a_row_of_a_cache_is_replaced_whole():
    model = random_model(dtype=torch.float64)
    ours, other = (KVCache(model.config, B, like=model.wte.weight) for B in (3, 1))
    model([[1, 2, 3]] * 3, ours)
    model([[9, 8, 7, 6, 5]], other)
    ours.replace([1], other)
    logits = model([[4], [4], [4]], ours)
    for row, ids in enumerate([[1, 2, 3, 4], [9, 8, 7, 6, 5, 4], [1, 2, 3, 4]]):
        torch.testing.assert_close(logits[row, -1], model(ids)[-1])
