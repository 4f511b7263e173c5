"""Biases, beginnings and functions of the caller's own; and what is told of each token."""

import math

import pytest
import torch

from cleangpt2.completion import generate, stream
from cleangpt2.errors import SamplingError
from cleangpt2.sampler.config import SamplingConfig
from tests.stubs import constant_model

# ---- bias ---------------------------------------------------------------------------------


def test_a_bias_moves_a_text_of_one_token(alphabet, tokenizer):
    for bias, text in [({"x": 1e4}, "xxx"), ({"b": -math.inf}, None), ({}, "bcd"), (None, "bcd")]:
        out = generate(alphabet, tokenizer, "a", bias=bias, temperature=0, max_new_tokens=3)
        assert out.text == text or (text is None and out.text[0] != "b")


def test_a_bias_adds_to_those_by_id(tokenizer):
    [x], [y] = tokenizer.encode("x"), tokenizer.encode("y")
    model = constant_model([0.0] * tokenizer.vocab_size)
    settings = {"logit_bias": ((x, 30.0),), "bias": {"y": 30.0}, "num_samples": 20, "seed": 1}
    outs = generate(model, tokenizer, ["a"], max_new_tokens=1, **settings)
    assert {out.ids[0] for out in outs} == {x, y}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("was", "bias moves one token, and 'was' is 2: 'wa', 's'; ' was' is one"),
        ("zq", "bias moves one token, and 'zq' is 2: 'z', 'q'"),
        ("", "bias moves one token, and '' is 0: none"),
    ],
)
def test_a_bias_of_several_tokens_says_which(model, tokenizer, text, message):
    if text == "was":
        assert len(tokenizer.encode(" was")) == 1
    with pytest.raises(SamplingError) as caught:
        generate(model, tokenizer, "a", bias={text: 1.0})
    assert str(caught.value).startswith(message.split(":")[0])
    assert (str(caught.value) == message) or text == "was"


def test_ids_may_come_in_lists_and_biases_by_id(alphabet, tokenizer):
    [b], [c], [x] = (tokenizer.encode(letter) for letter in "bcx")
    asks = {"temperature": 0, "max_new_tokens": 2}

    def text(**settings):
        return generate(alphabet, tokenizer, "a", **asks, **settings).text

    assert text(logit_bias={x: 1e4}) == text(logit_bias=[[x, 1e4]]) == "xx"
    assert text(forced_start=[x]) == "xy"
    assert text(banned=[[b, c]]).startswith("b") and text(banned=[[b, c]]) != "bc"


# ---- start --------------------------------------------------------------------------------


def test_a_response_begins_with_its_start(model, tokenizer):
    outs = generate(
        model, tokenizer, ["The dog", "If"], start=" was é", num_samples=2, max_new_tokens=20
    )
    n = len(tokenizer.encode(" was é"))
    for out in outs:
        assert out.text.startswith(" was é")
        assert out.ids[:n] == tokenizer.encode(" was é") and len(out.ids) > n
    settings = {"start": " was", "seed": 1, "max_new_tokens": 9}
    pieces = list(stream(model, tokenizer, "If", **settings))
    assert "".join(pieces) == generate(model, tokenizer, "If", **settings).text


def test_there_is_one_way_to_begin(model, tokenizer):
    with pytest.raises(SamplingError, match="start and forced_start both say how to begin"):
        generate(model, tokenizer, "a", start="b", forced_start=(5,))


# ---- filters ------------------------------------------------------------------------------


def test_a_function_of_the_callers_sees_logits_and_all_ids(alphabet, tokenizer):
    seen = []

    def no_c(logits, sequences):
        seen.append([list(ids) for ids in sequences])
        logits[:, tokenizer.encode("c")] = -torch.inf
        return logits

    outs = generate(
        alphabet, tokenizer, ["a", "f"], filters=[no_c], temperature=0, max_new_tokens=2
    )
    assert outs[0].text[0] == "b" and outs[0].text[1] != "c" and outs[1].text == "gh"
    [a], [b], [f], [g] = (tokenizer.encode(c) for c in "abfg")
    assert seen == [[[a], [f]], [[a, b], [f, g]]]


def test_functions_come_after_healing_and_bans(tokenizer, babbler):
    def widest(logits, sequences):
        allowed.append(int((logits > -torch.inf).sum()))
        return logits

    allowed = []
    generate(babbler, tokenizer, "the g", heal=True, filters=widest, max_new_tokens=1)
    generate(babbler, tokenizer, "the d", ban="o", filters=[widest], max_new_tokens=1)
    assert allowed[0] < 10 < allowed[1] < tokenizer.vocab_size


# ---- log-probabilities --------------------------------------------------------------------


def test_log_probabilities_before_and_after_the_filters(tokenizer):
    """Of probability 1/2, 1/4, 1/4; the last is banned, and a temperature of 1/2 squares."""
    logits = [-1e9] * tokenizer.vocab_size
    ids = [tokenizer.encode(c)[0] for c in "xyz"]
    for id, p in zip(ids, (0.5, 0.25, 0.25), strict=True):
        logits[id] = math.log(p)
    outs = generate(
        constant_model(logits), tokenizer, "a", ban="z", temperature=0.5, top_logprobs=2,
        num_samples=30, max_new_tokens=1, seed=1,
    )  # fmt: skip
    before = dict(zip(ids, (0.5, 0.25, 0.25), strict=True))
    after = {ids[0]: 0.8, ids[1]: 0.2}  # 4 : 1
    assert {out.ids[0] for out in outs} == set(after)
    for out in outs:
        [id] = out.ids
        assert math.exp(out.logprobs[0]) == pytest.approx(before[id])
        assert math.exp(out.filtered_logprobs[0]) == pytest.approx(after[id])
        [top], [filtered] = out.top_logprobs, out.top_filtered_logprobs
        assert len(top) == 2 and top[0][0] == ids[0]
        assert [(i, pytest.approx(math.exp(p))) for i, p in filtered] == [*after.items()]


def test_alternatives_are_there_for_every_token_if_asked_for(model, tokenizer):
    config = SamplingConfig(top_logprobs=3, max_new_tokens=7, seed=1, top_k=2)
    for out in generate(model, tokenizer, ["The dog", "If"], config=config, stop_ids=()):
        assert [len(top) for top in out.top_logprobs] == [3] * 7
        assert [len(top) for top in out.top_filtered_logprobs] == [2] * 7
        for id, logprob, top in zip(out.ids, out.logprobs, out.top_logprobs, strict=True):
            assert dict(top).get(id, logprob) == logprob  # one and the same number
            assert sorted(top, key=lambda pair: -pair[1]) == top
    out = generate(model, tokenizer, "If", max_new_tokens=2)
    assert out.top_logprobs is None and out.top_filtered_logprobs is None
