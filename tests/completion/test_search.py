"""Beam and contrastive search with text on both sides: the sampler's results, read."""

import math

import pytest

from cleangpt2.completion import beam_search, contrastive_search
from cleangpt2.completion.search import CONSTRAINTS
from cleangpt2.errors import SamplingError
from cleangpt2.sampler import beam
from cleangpt2.sampler.config import BeamConfig, SamplingConfig


def test_beams_are_those_of_the_sampler(model, tokenizer):
    config = BeamConfig(num_beams=5, num_return=3, max_new_tokens=9, length_penalty=0.7)
    outs = beam_search(model, tokenizer, "The dog", config=config)
    ids = tokenizer.encode("The dog")
    hypotheses = beam.beam_search(
        model, ids, config, stop_ids=[tokenizer.eos_id], vocab_size=tokenizer.vocab_size
    )
    assert [tuple(out.ids) for out in outs] == [h.ids for h in hypotheses]
    assert [out.score for out in outs] == [h.score for h in hypotheses]
    assert [out.sample for out in outs] == [0, 1, 2]
    assert outs[0].score >= outs[1].score >= outs[2].score
    for out in outs:
        written = [id for id in out.ids if id != tokenizer.eos_id]
        assert out.text == tokenizer.decode(written)
        assert (out.prompt, out.prompt_ids, out.seed) == ("The dog", ids, None)
        assert len(out.logprobs) == len(out.ids) and out.filtered_logprobs is None
        assert out.score == pytest.approx(math.fsum(out.logprobs) / len(out.ids) ** 0.7)


def test_a_wider_beam_finds_a_text_no_less_likely(model, tokenizer):
    settings = {"max_new_tokens": 6, "stop_ids": (), "length_penalty": 0.0}
    [narrow] = beam_search(model, tokenizer, "The dog", num_beams=1, **settings)
    [wide] = beam_search(model, tokenizer, "The dog", num_beams=40, **settings)
    assert wide.score > narrow.score


def test_beams_heal_and_keep_the_constraints(babbler, tokenizer):
    outs = beam_search(
        babbler, tokenizer, "the gi", heal=True, num_beams=6, num_return=6, max_new_tokens=8,
        ban="irl", no_repeat_ngram=1, bias={"h": 3.0}, min_new_tokens=8,
    )  # fmt: skip
    assert len(outs) == 6
    for out in outs:
        said = tokenizer.decode(out.prompt_ids + out.ids)
        assert said == "the gi" + out.text and "irl" not in said
        assert len(set(out.ids)) == len(out.ids) == 8
    assert any("h" in out.text for out in outs)


def test_a_search_can_begin_with_a_text(model, tokenizer):
    assert contrastive_search(model, tokenizer, "The", start=" dog", max_new_tokens=9).text[:4] == (
        " dog"
    )
    outs = beam_search(model, tokenizer, "The", start=" dog", max_new_tokens=9, num_return=2)
    assert all(out.text.startswith(" dog") for out in outs)


def test_contrastive_search_gives_one_completion(alphabet, tokenizer):
    out = contrastive_search(alphabet, tokenizer, "a", alpha=0.0, max_new_tokens=4)
    assert (out.text, out.finish_reason, out.prompt) == ("bcde", "length", "a")
    assert len(out.logprobs) == 4


def test_a_stop_token_is_not_text(alphabet, tokenizer):
    [d] = tokenizer.encode("d")
    [out] = beam_search(alphabet, tokenizer, "a", stop_ids=[d], num_beams=2)
    assert (out.text, out.ids[-1], out.finish_reason) == ("bc", d, "stop")


def test_an_empty_prompt_starts_from_the_end_of_text(model, tokenizer):
    for out in (
        *beam_search(model, tokenizer, max_new_tokens=2),
        contrastive_search(model, tokenizer, max_new_tokens=2),
    ):
        assert (out.prompt, out.prompt_ids) == ("", [tokenizer.eos_id])


def test_ids_may_come_in_lists_here_too(alphabet, tokenizer):
    [c], [x] = tokenizer.encode("c"), tokenizer.encode("x")
    settings = {"banned": [[c]], "logit_bias": {x: 1e4}, "max_new_tokens": 2}
    assert beam_search(alphabet, tokenizer, "a", **settings)[0].text == "xx"
    assert contrastive_search(alphabet, tokenizer, "b", banned=[[c]], alpha=0.0).ids[0] != c


def test_the_constraints_are_settings_of_the_sampler():
    assert set(CONSTRAINTS) < set(SamplingConfig.__dataclass_fields__)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.5}, "temperature is a setting of generate; known here: max_new_"),
        ({"stop": "x"}, "stop is a setting of generate; known here"),
        ({"alpha": 0.5}, "alpha is a setting of contrastive_search; known here"),
        ({"num_beam": 2}, "Did you mean 'num_beams'"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"num_return": 9}, "num_return is 9 of 4 beams: raise num_beams"),
        ({"ban": ""}, "a ban is empty"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0"),
    ],
)
def test_a_mistake_is_one_line(model, tokenizer, settings, message):
    with pytest.raises(SamplingError, match=message) as caught:
        beam_search(model, tokenizer, **settings)
    assert "\n" not in str(caught.value)
