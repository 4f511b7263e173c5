"""Settings work together in their order, and what leaves no token says so."""

import math
from itertools import pairwise

import pytest
import torch

from cleangpt2.errors import SamplingError
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sampler.decode import Decoding
from cleangpt2.sampler.pipeline import check_filters, check_ids, constrain, run_filters, warp
from tests.helpers import unchecked
from tests.stubs import constant_model, random_model, successor_model

INF = math.inf
V = 6


def constrained(ids, start=1, stop_ids=(), end=None, logits=None, **settings):
    logits = torch.arange(float(V))[None] if logits is None else logits
    ends = None if end is None else [end]
    return constrain(
        logits, [ids], SamplingConfig(**settings), starts=[start], stop_ids=stop_ids, ends=ends
    )[0].tolist()


def write(model, prompt, filters=(), stop_ids=(), **settings):
    """What one greedy row becomes."""
    config = SamplingConfig(**{"temperature": 0, "max_new_tokens": 6, **settings})
    decoding = Decoding(model, [prompt], config, filters=filters, stop_ids=stop_ids)
    while decoding.active:
        decoding.step()
    return decoding.sequences[0][len(prompt) :]


# ---- nothing asked, nothing done ----------------------------------------------------------


def test_without_settings_the_logits_come_back_as_they_are():
    logits, config = torch.randn(2, V), SamplingConfig()
    assert constrain(logits, [[1], [2]], config, starts=[1, 1]) is logits
    assert run_filters(logits, [[1], [2]], []) is logits
    assert warp(logits, config) is logits


def test_greedy_decoding_does_not_warp():
    logits = torch.randn(2, V)
    config = SamplingConfig(temperature=0, top_k=2, top_p=0.1, min_p=0.5, typical_p=0.2)
    assert warp(logits, config) is logits


# ---- constraints --------------------------------------------------------------------------


def test_bias_comes_before_the_repetition_penalty():
    # (1 + 3) / 2, not 1 / 2 + 3
    assert constrained([1], logit_bias=((1, 3.0),), repetition_penalty=2.0)[1] == 2.0


def test_the_repetition_penalty_comes_before_those_that_count():
    # 4 / 2 - 1, not (4 - 1) / 2
    assert constrained([0, 4], repetition_penalty=2.0, presence_penalty=1.0)[4] == 1.0


def test_the_prompt_counts_for_repetition_and_not_for_frequency():
    assert constrained([4, 4, 4], start=3, repetition_penalty=2.0)[4] == 2.0
    assert constrained([4, 4, 4], start=3, frequency_penalty=1.0, presence_penalty=1.0)[4] == 4.0
    assert constrained([4, 4, 4], start=1, frequency_penalty=1.0)[4] == 2.0


def test_stop_tokens_wait_for_the_least_length():
    for length, allowed in ((3, False), (4, False), (5, True)):
        logits = constrained([0] * length, start=2, min_new_tokens=3, stop_ids=[5])
        assert (logits[5] > -INF) == allowed


def test_a_response_begins_and_ends_as_it_has_to():
    settings = {"forced_start": (2, 4), "forced_end": 1, "banned": ((4,), (1,))}
    certain = [0 if id == 2 else -INF for id in range(V)]
    assert constrained([0], end=9, **settings) == certain
    assert constrained([0, 2], end=9, **settings).index(0.0) == 4
    assert sum(value > -INF for value in constrained([0, 2, 4], end=9, **settings)) == 4
    assert constrained([0] * 8, end=9, **settings).index(0.0) == 1


@pytest.mark.parametrize("end", [2, 3])
def test_the_end_goes_before_the_start_where_both_want_the_place(end):
    logits = constrained([0] * (end - 1), end=end, forced_start=(2, 4, 3), forced_end=1)
    assert logits[1] == 0.0


def test_each_row_has_its_own_limits():
    logits = constrain(
        torch.zeros(3, V), [[0], [0, 0], [0, 0, 0]], SamplingConfig(forced_end=1),
        starts=[1, 1, 1], ends=[3, 3, 5],
    )  # fmt: skip
    assert [(row > -INF).sum().item() for row in logits] == [V, 1, V]


def test_what_the_settings_forbid_is_never_written():
    model = random_model()
    settings = {"temperature": 1.0, "seed": 3, "max_new_tokens": 40}
    free = write(model, [7, 8], **settings)
    assert len(set(free)) < len(free)
    assert len(set(write(model, [7, 8], **settings, no_repeat_ngram=1))) == 40
    pairs = list(pairwise(free))
    kept = write(model, [7, 8], **settings, banned=(pairs[0], (free[9],)))
    assert pairs[0] not in pairwise(kept) and free[9] not in kept


def test_greedy_decoding_obeys_the_constraints():
    model = successor_model()
    assert write(model, [3]) == [4, 5, 6, 7, 8, 9]
    assert write(model, [3], forced_start=(9, 9)) == [9, 9, 10, 11, 12, 13]
    assert write(model, [3], forced_end=0) == [4, 5, 6, 7, 8, 0]
    assert write(model, [3], max_length=3, forced_end=0) == [4, 0]
    assert write(model, [3], logit_bias=((9, 99.0),), max_new_tokens=2) == [9, 9]
    assert write(model, [3], banned=((4, 5),))[:2] != [4, 5]


def test_a_stop_token_comes_after_the_least_length():
    assert write(successor_model(), [3], stop_ids=[5]) == [4, 5]
    longer = write(successor_model(), [3], stop_ids=[5], min_new_tokens=3)
    assert len(longer) >= 3 and longer[:2] == [4, 0]  # the ties begin with the smallest id


def test_a_response_cut_by_its_limit_says_length_whatever_it_is_made_to_end_with():
    config = SamplingConfig(temperature=0, max_new_tokens=3, forced_end=9)
    decoding = Decoding(successor_model(), [[3], [7]], config, stop_ids=[9])
    while decoding.active:
        decoding.step()
    assert decoding.sequences == [[3, 4, 5, 9], [7, 8, 9]]
    assert decoding.finished == {0: "length", 1: "stop"}


# ---- functions of the user's own ----------------------------------------------------------


def forbid_the_last(logits, sequences):
    for row, ids in enumerate(sequences):
        logits[row, ids[-1]] = -INF
    return logits


def test_a_function_sees_the_rows_at_work_and_all_their_ids():
    seen = []

    def look(logits, sequences):
        seen.append((tuple(logits.shape), [list(ids) for ids in sequences]))
        return logits

    decoding = Decoding(
        successor_model(), [[1, 2], [8]], SamplingConfig(temperature=0, max_new_tokens=3),
        stop_ids=[9], filters=[look],
    )  # fmt: skip
    while decoding.active:
        decoding.step()
    assert seen == [
        ((2, 20), [[1, 2], [8]]),
        ((1, 20), [[1, 2, 3]]),
        ((1, 20), [[1, 2, 3, 4]]),
    ]


def test_functions_work_one_after_the_other_between_constraints_and_warping():
    order = []
    logits = torch.tensor([[3.0, 1.0, 2.0]])

    def first(logits, ids):
        order.append(logits.tolist()[0])
        return logits + torch.tensor([0.0, 5.0, 0.0])

    def second(logits, ids):
        order.append(logits.tolist()[0])
        return logits

    config = SamplingConfig(top_k=1, banned=((0,),))
    logits = constrain(logits, [[0]], config, starts=[1])
    logits = warp(run_filters(logits, [[0]], [first, second]), config)
    assert order == [[-INF, 1.0, 2.0], [-INF, 6.0, 2.0]]
    assert logits.tolist() == [[-INF, 6.0, -INF]]


def test_a_function_may_write_into_its_logits_and_no_log_prob_notices():
    model = random_model()
    config = SamplingConfig(temperature=0, max_new_tokens=5, top_logprobs=2)
    decoding = Decoding(model, [[5]], config, filters=[forbid_the_last])
    with torch.no_grad():
        while decoding.active:
            before = list(decoding.sequences[0])
            (token,) = decoding.step()
            full = model(before)[-1].log_softmax(-1)
            assert token.id != before[-1]
            assert token.logprob == pytest.approx(full[token.id].item(), abs=1e-5)
            assert token.top[0].id == full.argmax().item()


def allow_all(logits, sequences):
    return logits.copy_(torch.arange(logits.size(1)))


def test_a_function_cannot_allow_what_was_forbidden():
    model = constant_model([0.0, 1.0, 2.0, 50.0])
    config = SamplingConfig(temperature=0, max_new_tokens=3, banned=((2,),))
    decoding = Decoding(model, [[0]], config, vocab_size=3, filters=[allow_all])
    while decoding.active:
        decoding.step()
    assert decoding.sequences == [[0, 1, 1, 1]]


def test_a_function_writes_into_a_copy():
    logits = torch.tensor([[0.0, -INF, 0.0]])
    assert run_filters(logits, [[0]], [allow_all]).tolist() == [[0.0, -INF, 2.0]]
    assert logits.tolist() == [[0.0, -INF, 0.0]]


def spoiled(change):
    def spoil(logits, sequences):
        return change(logits)

    return spoil


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: None, "the filter spoil returned a NoneType; return the logits"),
        (lambda x: x.tolist(), "returned a list"),
        (lambda x: x[:, :3], "returned logits of shape .*2, 3.*keep the shape they had"),
        (lambda x: x[0], "returned logits of shape"),
        (lambda x: x.double(), "of dtype torch.float64; keep the dtype they had, torch.float32"),
        (lambda x: x.to("meta"), "of device meta"),
        (lambda x: x.index_fill(1, torch.tensor(1), math.nan), "made logits NaN"),
        (lambda x: x.index_fill(1, torch.tensor(1), INF), "made logits NaN or infinite after 3"),
        (lambda x: x - INF, "the filter spoil left no token to choose after 3 tokens"),
    ],
)
def test_a_function_that_returns_no_logits_is_named(change, message):
    with pytest.raises(SamplingError, match=message) as caught:
        run_filters(torch.randn(2, V), [[1, 2, 3], [1, 2, 3]], [spoiled(change)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("filters", [forbid_the_last, "ab", [3], None])
def test_what_is_no_list_of_functions_is_refused(filters):
    check = unchecked("cleangpt2.sampler.pipeline").check_filters
    with pytest.raises(SamplingError, match="give a list of functions on logits and ids"):
        check(filters)


def test_functions_are_kept_as_they_came():
    assert check_filters([forbid_the_last, max]) == (forbid_the_last, max)


# ---- nothing left to choose ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"banned": tuple((id,) for id in range(V))}, "banned"),
        ({"logit_bias": tuple((id, -INF) for id in range(V))}, "logit_bias"),
        ({"banned": ((0,), (1,), (2,)), "no_repeat_ngram": 1}, "banned"),
        ({"no_repeat_ngram": 1, "logit_bias": ((0, -INF), (1, -INF))}, "no_repeat_ngram"),
    ],
)
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_settings_that_leave_no_token_are_named(settings, cause, temperature):
    model = constant_model([0.0] * V)
    with pytest.raises(SamplingError, match=rf"^{cause} left no token to choose after") as caught:
        write(model, [3], temperature=temperature, max_new_tokens=40, **settings)
    assert "\n" not in str(caught.value)


def test_a_beam_without_a_future_may_be_allowed():
    config = SamplingConfig(no_repeat_ngram=1)
    logits = constrain(torch.zeros(2, 2), [[0, 1], [0]], config, starts=[1, 1], dead_ends=True)
    assert logits.tolist() == [[-INF, -INF], [-INF, 0.0]]
    assert run_filters(logits, [[0, 1], [0]], [lambda x, _: x], dead_ends=True).equal(logits)


def test_a_penalty_that_overflows_is_named():
    logits = torch.full((1, V), 3e38)
    with pytest.raises(SamplingError, match="repetition_penalty made logits NaN or infinite"):
        constrained([1, 2], repetition_penalty=1e-9, logits=logits)


# ---- ids that cannot be -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "stop_ids", "message"),
    [
        ({"banned": ((1,), (2, 50))}, [], "banned: id 50 is never sampled; give ids from 0 to 49"),
        ({"logit_bias": ((60, 1.0),)}, [], "logit_bias: id 60 is never sampled"),
        ({"forced_start": (1, 55)}, [], "forced_start: id 55 is never sampled"),
        ({"forced_end": 50}, [], "forced_end: id 50 is never sampled"),
        ({}, [50], "stop id 50 is never sampled; give ids from 0 to 49"),
        ({"banned": ((4,),)}, [3, 4], "stop id 4 is banned and would never come"),
        ({"logit_bias": ((4, -INF),)}, [4], "stop id 4 is banned and would never come"),
        ({"forced_start": (1, 4)}, [4], "forced_start has the stop id 4"),
    ],
)  # fmt: skip
def test_ids_that_cannot_be_are_refused_at_once(settings, stop_ids, message):
    with pytest.raises(SamplingError, match=message) as caught:
        Decoding(
            random_model(), [[1]], SamplingConfig(**settings), stop_ids=stop_ids, vocab_size=50
        )
    assert "\n" not in str(caught.value)


def test_ids_that_can_be_are_accepted():
    config = SamplingConfig(
        banned=((4, 5), (6,)), logit_bias=((4, -100.0),), forced_start=(6,), forced_end=4
    )
    check_ids(config, [4, 5], 7)
