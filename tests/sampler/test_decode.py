"""Decoding beside the plain loop: no cache, batch or order of rows shows in what is written."""

import math

import pytest
import torch

from cleangpt2.errors import ContextLengthError, InputError, SamplingError
from cleangpt2.model.cache import KVCache
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sampler.decode import MAX_ROWS, Decoding
from cleangpt2.sampler.pipeline import constrain, warp
from tests.stubs import (
    close_calls,
    constant_model,
    finished_loop,
    random_model,
    successor_model,
)

PROMPTS = [[7], [3, 1, 4, 1, 5, 9, 2, 6], [10, 20, 30], [60, 0, 60, 0, 60], [42] * 17]
SETTINGS = [
    {"temperature": 0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 10},
    {"temperature": 1.2, "top_p": 0.8},
    {"temperature": 0.9, "top_k": 20, "top_p": 0.9},
]
MANY = {
    "temperature": 0.9, "typical_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2,
    "frequency_penalty": 0.3, "presence_penalty": 0.2, "no_repeat_ngram": 2, "min_new_tokens": 5,
    "banned": ((4,), (7, 8)), "logit_bias": ((9, 2.0),), "forced_start": (12,), "forced_end": 13,
}  # fmt: skip


def decode(model, prompts, config, **kwargs):
    """The finished `Decoding`, and the log-probabilities of every row."""
    decoding = Decoding(model, prompts, config, **kwargs)
    logprobs = [[] for _ in decoding.sequences]
    while decoding.active:
        for token in decoding.step():
            logprobs[token.row].append(token.logprob)
    return decoding, logprobs


def responses(model, prompts, config, num_samples=1, **kwargs):
    """The new ids of every row."""
    decoding, _ = decode(model, prompts, config, num_samples=num_samples, **kwargs)
    rows = enumerate(decoding.sequences)
    return [ids[len(prompts[row // num_samples]) :] for row, ids in rows]


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def exact_model():
    """In float64 no two candidates stand within the noise, so texts must be equal to the token."""
    return random_model(dtype=torch.float64)


# ---- beside the plain loop ----------------------------------------------------------------


def test_continues_the_count():
    model = successor_model()
    config = SamplingConfig(max_new_tokens=6, temperature=0)
    assert responses(model, [[3], [1, 2, 17]], config) == [
        [4, 5, 6, 7, 8, 9],
        [18, 19, 0, 1, 2, 3],
    ]


def test_each_step_adds_one_column_and_the_loop_ends():
    decoding = Decoding(
        successor_model(), [[1, 2], [5, 6]], SamplingConfig(max_length=9, temperature=0)
    )
    widths = []
    while decoding.active:
        assert len(decoding.step()) == 2
        widths.append([len(ids) for ids in decoding.sequences])
    assert widths == [[n, n] for n in range(3, 10)]
    assert decoding.finished == {0: "length", 1: "length"}
    assert decoding.step() == []


def test_five_continuations_of_total_length_30_in_one_call(exact_model):
    prompt = list(range(10))
    config = SamplingConfig(max_length=30, seed=2)
    decoding, _ = decode(exact_model, [prompt], config, num_samples=5)
    assert [len(ids) for ids in decoding.sequences] == [30] * 5
    for sample, ids in enumerate(decoding.sequences):
        assert ids == prompt + finished_loop(exact_model, prompt, config, sample)[0]
    assert len({tuple(ids) for ids in decoding.sequences}) == 5


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_batch_writes_what_the_plain_loop_writes(exact_model, settings):
    config = SamplingConfig(**settings, seed=3, max_new_tokens=15)
    ours = responses(exact_model, PROMPTS, config, num_samples=2, stop_ids=[11])
    theirs = [
        finished_loop(exact_model, prompt, config, sample, (11,))[0]
        for prompt in PROMPTS
        for sample in range(2)
    ]
    assert ours == theirs


@pytest.mark.parametrize("settings", SETTINGS[::2], ids=str)
def test_in_float32_texts_part_only_at_near_ties(model, settings):
    config = SamplingConfig(**settings, seed=4, max_new_tokens=30)
    ours = responses(model, PROMPTS, config, num_samples=2)
    theirs = [finished_loop(model, prompt, config, s) for prompt in PROMPTS for s in range(2)]
    parted = sum(close_calls(mine, *loop) for mine, loop in zip(ours, theirs, strict=True))
    assert parted <= 1


def test_logprobs_are_those_of_a_full_forward(model):
    config = SamplingConfig(seed=5, max_new_tokens=30, temperature=0.8, top_k=20)
    decoding, logprobs = decode(model, PROMPTS, config, num_samples=2, stop_ids=[11])
    with torch.no_grad():
        for row, ids in enumerate(decoding.sequences):
            full = model(ids).log_softmax(-1)
            start = len(PROMPTS[row // 2])
            expected = [full[at - 1, ids[at]].item() for at in range(start, len(ids))]
            assert logprobs[row] == pytest.approx(expected, abs=1e-5 * full.abs().max().item())


@pytest.mark.parametrize("split", [[17], [1] * 17, [5, 1, 11], [16, 1]], ids=str)
@torch.no_grad()
def test_a_prompt_read_in_chunks_gives_the_same_logits(model, split):
    ids = torch.tensor([PROMPTS[4]])
    cache = KVCache(model.config, B=1, like=model.wte.weight)
    logits = torch.cat([model(part, cache) for part in ids.split(split, dim=1)], dim=1)
    full = model(ids)
    torch.testing.assert_close(logits, full, rtol=0, atol=1e-5 * full.abs().max().item())


# ---- what must not matter -----------------------------------------------------------------


@pytest.mark.parametrize("settings", [*SETTINGS[:2], MANY], ids=str)
def test_a_sample_is_the_same_alone_and_in_any_batch(exact_model, settings):
    config = SamplingConfig(**settings, seed=6, max_new_tokens=20)
    alone = [responses(exact_model, [prompt], config)[0] for prompt in PROMPTS]
    assert responses(exact_model, PROMPTS, config) == alone
    assert responses(exact_model, PROMPTS[::-1], config) == alone[::-1]
    assert responses(exact_model, PROMPTS[1:3], config) == alone[1:3]
    assert responses(exact_model, PROMPTS, config, num_samples=3)[::3] == alone


def test_a_sample_is_the_same_however_many_others_there_are(exact_model):
    config = SamplingConfig(seed=6, max_new_tokens=20)
    five = responses(exact_model, PROMPTS[:1], config, num_samples=5)
    assert responses(exact_model, PROMPTS[:1], config, num_samples=2) == five[:2]


def test_a_longer_response_begins_with_the_shorter(exact_model):
    long, short = (
        responses(exact_model, PROMPTS, SamplingConfig(seed=6, max_new_tokens=n)) for n in (25, 8)
    )
    assert [ids[:8] for ids in long] == short


def test_rows_that_finish_early_do_not_disturb_the_others(exact_model):
    # Everyone has another limit, some end at a stop token, one is finished from outside.
    config = SamplingConfig(seed=7, max_length=22, temperature=1.0)
    alone = [responses(exact_model, [p], config, stop_ids=[5, 33])[0] for p in PROMPTS]
    assert len({len(ids) for ids in alone}) > 2
    decoding = Decoding(exact_model, PROMPTS, config, stop_ids=[5, 33])
    while decoding.active:
        decoding.step()
        if len(decoding.sequences[3]) == 8:
            decoding.finish(3, "stop")
    ours = [ids[len(p) :] for ids, p in zip(decoding.sequences, PROMPTS, strict=True)]
    assert ours[3] == alone[3][:3]
    assert ours[:3] + ours[4:] == alone[:3] + alone[4:]


def test_equal_seeds_give_equal_text_and_others_do_not(exact_model):
    def write(seed, prompt):
        config = SamplingConfig(seed=seed, max_new_tokens=20)
        return responses(exact_model, [prompt], config)[0]

    assert write(1, [7, 8]) == write(1, [7, 8])
    assert write(1, [7, 8]) != write(2, [7, 8])


def test_different_prompts_draw_different_numbers():
    config = SamplingConfig(seed=1, max_new_tokens=20)
    one, other = responses(constant_model([0.0] * 50), [[7], [8]], config)
    assert one != other


def test_without_a_seed_one_is_drawn_and_named(exact_model):
    first, _ = decode(exact_model, [[7]], SamplingConfig(max_new_tokens=20))
    second, _ = decode(exact_model, [[7]], SamplingConfig(max_new_tokens=20))
    assert first.seed != second.seed and first.sequences != second.sequences
    again, _ = decode(exact_model, [[7]], SamplingConfig(max_new_tokens=20, seed=first.seed))
    assert again.sequences == first.sequences


@pytest.mark.parametrize(
    "settings", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-9}, {"temperature": 1e-30}]
)
def test_settings_that_leave_one_token_are_greedy(exact_model, settings):
    greedy = SamplingConfig(temperature=0, max_new_tokens=20)
    narrow = SamplingConfig(**settings, max_new_tokens=20, seed=1)
    assert responses(exact_model, PROMPTS, narrow) == responses(exact_model, PROMPTS, greedy)


def test_filters_wider_than_the_vocabulary_change_nothing(exact_model):
    plain = SamplingConfig(seed=1, max_new_tokens=20)
    wide = SamplingConfig(seed=1, max_new_tokens=20, top_k=10**6, top_p=1.0)
    assert responses(exact_model, PROMPTS, wide) == responses(exact_model, PROMPTS, plain)


# ---- ends ---------------------------------------------------------------------------------


def test_a_stop_token_ends_its_row_and_belongs_to_it():
    config = SamplingConfig(temperature=0, max_new_tokens=10)
    decoding, logprobs = decode(successor_model(), [[3], [12]], config, stop_ids=[7, 15])
    assert decoding.sequences == [[3, 4, 5, 6, 7], [12, 13, 14, 15]]
    assert decoding.finished == {0: "stop", 1: "stop"}
    assert [len(row) for row in logprobs] == [4, 3]


def test_a_stop_token_at_the_limit_is_a_stop():
    config = SamplingConfig(temperature=0, max_new_tokens=4)
    decoding, _ = decode(successor_model(), [[3]], config, stop_ids=[7])
    assert decoding.finished == {0: "stop"}


@pytest.mark.parametrize("settings", [{"max_new_tokens": 0}, {"max_length": 3}, {"max_length": 1}])
def test_no_room_for_a_token_gives_none(model, settings):
    decoding, logprobs = decode(model, [[1, 2, 3]], SamplingConfig(**settings), num_samples=2)
    assert decoding.sequences == [[1, 2, 3]] * 2
    assert decoding.finished == {0: "length", 1: "length"} and logprobs == [[], []]


def test_as_many_rows_as_are_allowed_are_begun(model):
    config = SamplingConfig(max_new_tokens=1)
    assert len(Decoding(model, [[1], [2]], config, num_samples=MAX_ROWS // 2).active) == MAX_ROWS


def test_no_prompts_are_no_work(model):
    assert Decoding(model, [], SamplingConfig()).active == []


def test_the_context_ends_a_response(exact_model):
    config = SamplingConfig(max_new_tokens=500, seed=1)
    prompts = [[1], [2] * 47, [3] * 48, [4] * 30]
    decoding, _ = decode(exact_model, prompts, config)
    assert [len(ids) for ids in decoding.sequences] == [48] * 4
    assert set(decoding.finished.values()) == {"length"}
    inside = SamplingConfig(max_new_tokens=47, seed=1)
    assert decoding.sequences[0][1:] == finished_loop(exact_model, [1], inside)[0]


@pytest.mark.parametrize("settings", SETTINGS[:2], ids=str)
def test_a_sliding_window_goes_on_with_the_newest_tokens(exact_model, settings):
    # In one batch: short, near the limit, exactly at it, beyond it from the start.
    prompts = [[1], [2, 3] * 20, list(range(48)), [5, 6, 7] * 20, [9] * 47]
    config = SamplingConfig(**settings, max_new_tokens=14, past_context="slide", seed=1)
    ours = responses(exact_model, prompts, config, num_samples=2)
    theirs = [
        finished_loop(exact_model, prompt, config, sample)[0]
        for prompt in prompts
        for sample in range(2)
    ]
    assert ours == theirs


def test_a_sliding_window_never_ends_by_itself():
    model = successor_model(n_positions=8)
    config = SamplingConfig(max_new_tokens=100, temperature=0, past_context="slide")
    assert responses(model, [[0]], config)[0] == [n % 20 for n in range(1, 101)]


def test_an_endless_limit_takes_no_memory_ahead():
    config = SamplingConfig(max_new_tokens=10**12, past_context="slide", temperature=0)
    decoding = Decoding(successor_model(n_positions=8), [[0]], config)
    assert [decoding.step()[0].id for _ in range(20)] == [*range(1, 20), 0]


# ---- padding of the vocabulary ------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 5.0}, {"top_p": 0.999}])
def test_rows_that_pad_the_vocabulary_are_never_sampled(settings):
    model = constant_model([0.0, 1.0, 2.0, 3.0, 50.0, 60.0])
    config = SamplingConfig(**settings, seed=1, max_new_tokens=40)
    decoding, logprobs = decode(model, [[1]], config, num_samples=20, vocab_size=4)
    assert {id for ids in decoding.sequences for id in ids} <= {0, 1, 2, 3}
    expected = torch.tensor([0.0, 1.0, 2.0, 3.0]).log_softmax(-1)
    last = decoding.sequences[0][-1]
    assert logprobs[0][-1] == pytest.approx(expected[last].item(), abs=1e-6)


def test_a_vocabulary_larger_than_the_model_is_the_model_s():
    model = constant_model([0.0] * 4)
    assert Decoding(model, [[1]], SamplingConfig(), vocab_size=9).vocab_size == 4


@pytest.mark.parametrize(
    ("bad", "where"), [(math.nan, "token 1 of sequence 0"), (math.inf, "token 3 of sequence 1")]
)
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_logits_that_are_no_numbers_are_refused_at_their_step(bad, where, temperature):
    model = successor_model()
    with torch.no_grad():
        # NaN spoils every product, infinity only those with the positive channel of token 6.
        model.output_weight[2, 6] = bad
    config = SamplingConfig(temperature=temperature, top_k=1 if temperature else None)
    decoding = Decoding(model, [[9], [4]], config)
    with pytest.raises(SamplingError, match=f"{where} are NaN or infinite: its weights are dam"):
        while decoding.active:
            decoding.step()


def test_a_short_data_type_is_named_as_a_cause():
    model = successor_model().to(torch.bfloat16)
    with torch.no_grad():
        model.output_weight[2, 6] = math.inf
    with pytest.raises(SamplingError, match="too large for torch.bfloat16, .*; try float32"):
        Decoding(model, [[6]], SamplingConfig()).step()


# ---- what is told of a token ---------------------------------------------------------------

TOLD = [
    {"temperature": 0},
    {"temperature": 0.8},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 10, "min_p": 0.05, "repetition_penalty": 1.3},
    {"temperature": 1.5, "typical_p": 0.8, "frequency_penalty": 0.5, "banned": ((4,), (9, 9))},
]


@pytest.mark.parametrize("settings", TOLD, ids=str)
@torch.no_grad()
def test_log_probs_and_alternatives_are_those_of_a_full_forward(model, settings):
    config = SamplingConfig(**settings, seed=5, max_new_tokens=12, top_logprobs=15)
    decoding = Decoding(model, PROMPTS, config, num_samples=2, stop_ids=[11])
    while decoding.active:
        for token in decoding.step():
            before = decoding.sequences[token.row][:-1]
            logits = model(before)[-1:]
            said = logits.log_softmax(-1)[0]
            start = len(PROMPTS[token.row // 2])
            drawn = warp(constrain(logits, [before], config, starts=[start]), config)
            drawn = drawn.log_softmax(-1)[0]
            if config.temperature == 0:
                drawn = torch.full_like(drawn, -torch.inf)
                drawn[token.id] = 0.0
            close = {"abs": 1e-4}
            assert token.logprob == pytest.approx(said[token.id].item(), **close)
            assert token.filtered_logprob == pytest.approx(drawn[token.id].item(), **close)
            for told, logprobs in ((token.top, said), (token.filtered_top, drawn)):
                allowed = int((logprobs > -torch.inf).sum())
                assert len(told) == min(15, allowed)
                assert [x.logprob for x in told] == sorted([x.logprob for x in told])[::-1]
                expected = logprobs.topk(len(told)).values.tolist()
                assert [x.logprob for x in told] == pytest.approx(expected, **close)
                own = [logprobs[x.id].item() for x in told]
                assert [x.logprob for x in told] == pytest.approx(own, **close)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_alternatives_are_told_only_where_they_are_asked_for(model, temperature):
    config = SamplingConfig(max_new_tokens=3, seed=1, temperature=temperature)
    decoding = Decoding(model, [[1]], config)
    while decoding.active:
        (token,) = decoding.step()
        assert token.top == token.filtered_top == ()


def test_asking_for_alternatives_changes_no_token(model):
    plain, told = (
        responses(model, PROMPTS, SamplingConfig(max_new_tokens=9, seed=1, top_logprobs=n))
        for n in (0, 5)
    )
    assert plain == told


# ---- how the model is treated -------------------------------------------------------------


def test_no_graph_is_kept(model, monkeypatch):
    seen = []
    logits = type(model).logits
    monkeypatch.setattr(
        type(model), "logits", lambda self, x: seen.append(logits(self, x)) or seen[-1]
    )
    assert torch.is_grad_enabled()
    responses(model, PROMPTS, SamplingConfig(max_new_tokens=3))
    assert len(seen) == 3 and not any(t.requires_grad for t in seen)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_dropout_is_off_and_the_mode_comes_back(exact_model):
    config = SamplingConfig(seed=1, max_new_tokens=20)
    expected = responses(exact_model, PROMPTS, config)
    exact_model.train()
    try:
        assert responses(exact_model, PROMPTS, config) == expected
        assert all(module.training for module in exact_model.modules())
    finally:
        exact_model.eval()


def test_training_goes_on_after_sampling():
    model = random_model()
    responses(model, [[1, 2]], SamplingConfig(max_new_tokens=3))
    model([[1, 2, 3]]).sum().backward()
    assert model.wte.weight.grad.abs().sum() > 0


def test_narrow_weights_are_sampled_in_float32():
    model = random_model(dtype=torch.bfloat16)
    decoding, logprobs = decode(model, PROMPTS, SamplingConfig(seed=1, max_new_tokens=20))
    with torch.no_grad():
        for ids, prompt, row in zip(decoding.sequences, PROMPTS, logprobs, strict=True):
            full = model(ids).float().log_softmax(-1)
            expected = [full[at - 1, ids[at]].item() for at in range(len(prompt), len(ids))]
            assert row == pytest.approx(expected, abs=0.02 * full.abs().max().item())


# ---- mistakes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "top_k is 0; it must be at least 1"),
        ({"top_k": -3}, r"-3; it must be at least 1, or None \(`--top-k None`\) to allow every"),
        ({"top_p": 0.0}, "top_p is 0.0; it must lie in"),
        ({"top_p": 1.5}, "top_p is 1.5; it must lie in"),
        ({"top_p": math.nan}, "top_p is nan; it must lie in"),
        ({"temperature": -0.5}, "temperature is -0.5; it must be a number from 0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"temperature": 1e-31}, "temperature is 1e-31; give 0"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1; it must be 0 or more"),
        ({"max_length": 0}, "max_length is 0; it must be at least 1"),
        ({"seed": -1}, "seed is -1; it must lie in"),
        ({"seed": 2**64}, "it must lie in 0 to"),
        ({"top_k": True}, "top_k is True, a bool"),
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_named_with_its_limit(settings, message):
    with pytest.raises(SamplingError, match=message) as caught:
        SamplingConfig(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompts", "kwargs", "error", "message"),
    [
        ([[1], []], {}, InputError, "a prompt without tokens"),
        ([[1, 61]], {}, InputError, "id 61 is outside this model's vocabulary, 0 to 60"),
        ([[-1]], {}, InputError, "id -1 is outside"),
        ([[[1, 2]]], {}, InputError, "a prompt of shape (1, 2)"),
        ([[1] * 49], {}, ContextLengthError, "49 tokens and the model's context holds 48"),
        ([[1]], {"num_samples": 0}, SamplingError, "num_samples is 0; it must be at least 1"),
        ([[1]], {"num_samples": 10**8}, SamplingError, "is 100000000 texts, and at most 4096 at"),
        (
            [[1]] * 3,
            {"num_samples": 2000},
            SamplingError,
            "is 6000 texts, and at most 4096 at once",
        ),
        ([[1]], {"stop_ids": [61]}, SamplingError, "stop id 61 is never sampled; give ids from"),
        ([[1]], {"stop_ids": [50], "vocab_size": 50}, SamplingError, "from 0 to 49"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused_at_once(model, prompts, kwargs, error, message):
    with pytest.raises(error) as caught:
        Decoding(model, prompts, SamplingConfig(), **kwargs)
    assert message in str(caught.value) and "\n" not in str(caught.value)
