"""Text in, text out: what is streamed, what is cut off, and in which order results come."""

import pytest
import torch

from cleangpt2.completion import Completion, generate, stream, stream_all
from cleangpt2.sampler.config import SamplingConfig
from tests.stubs import successor_model

# ---- one text -----------------------------------------------------------------------------


def test_one_prompt_gives_one_completion(alphabet, tokenizer):
    out = generate(alphabet, tokenizer, "a", max_new_tokens=4, temperature=0, seed=9)
    [a] = tokenizer.encode("a")
    ids = [a + 1, a + 2, a + 3, a + 4]
    assert out == Completion(
        prompt="a", text="bcde", prompt_ids=[a], ids=ids, logprobs=out.logprobs,
        filtered_logprobs=[0.0] * 4, finish_reason="length", sample=0, seed=9,
    )  # fmt: skip
    assert len(out.logprobs) == 4


def test_the_text_is_the_decoded_ids(model, tokenizer):
    outs = generate(
        model, tokenizer, ["The dog", "é", ""], num_samples=6, max_new_tokens=40, seed=1
    )
    assert {out.finish_reason for out in outs} >= {"length"}
    for out in outs:
        written = out.ids[:-1] if out.ids[-1] == tokenizer.eos_id else out.ids
        assert out.text == tokenizer.decode(written)
        assert (out.finish_reason == "stop") == (out.ids[-1] == tokenizer.eos_id)


def test_streamed_pieces_are_the_text(model, tokenizer):
    for seed in range(5):
        settings = {"max_new_tokens": 40, "seed": seed, "stop": ["e", "\ufffd\ufffd"]}
        pieces = list(stream(model, tokenizer, "The dog", **settings))
        assert "".join(pieces) == generate(model, tokenizer, "The dog", **settings).text
        assert all(pieces)


def test_an_empty_prompt_starts_from_the_end_of_text(model, tokenizer):
    out = generate(model, tokenizer, "", max_new_tokens=3)
    assert (out.prompt, out.prompt_ids) == ("", [tokenizer.eos_id])
    assert generate(model, tokenizer, max_new_tokens=3).prompt_ids == [tokenizer.eos_id]


def test_the_text_of_a_special_token_in_a_prompt_is_plain(model, tokenizer):
    out = generate(model, tokenizer, "<|endoftext|>", max_new_tokens=1)
    assert tokenizer.eos_id not in out.prompt_ids


def test_the_seed_that_was_drawn_gives_the_text_again(model, tokenizer):
    first = generate(model, tokenizer, "The dog", max_new_tokens=20)
    again = generate(model, tokenizer, "The dog", max_new_tokens=20, seed=first.seed)
    assert again == first


def test_settings_override_those_of_a_config(alphabet, tokenizer):
    config = SamplingConfig(temperature=0, max_new_tokens=50)
    assert generate(alphabet, tokenizer, "a", config=config, max_new_tokens=2).text == "bc"


# ---- several ------------------------------------------------------------------------------


def test_several_come_prompt_by_prompt(model, tokenizer):
    prompts = ["The dog was happy and", "girl", "If"]
    outs = generate(model, tokenizer, prompts, num_samples=2, max_length=20, seed=1)
    assert [(out.prompt, out.sample) for out in outs] == [(p, s) for p in prompts for s in (0, 1)]
    for number, prompt in enumerate(prompts):
        alone = generate(model, tokenizer, prompt, num_samples=2, max_length=20, seed=1)
        assert outs[2 * number : 2 * number + 2] == alone


def test_a_list_of_one_gives_a_list_and_an_empty_list_none(model, tokenizer):
    assert [out.prompt for out in generate(model, tokenizer, ["If"], max_new_tokens=2)] == ["If"]
    assert generate(model, tokenizer, []) == []


def test_rows_grow_together_and_each_ends_with_its_completion(model, tokenizer):
    deltas = list(
        stream_all(model, tokenizer, ["a", "The dog"], num_samples=2, max_new_tokens=9, seed=1)
    )
    assert [delta.row for delta in deltas if delta.completion] == [0, 1, 2, 3]
    for row in range(4):
        mine = [delta for delta in deltas if delta.row == row]
        assert mine[-1].completion is not None
        assert "".join(delta.text for delta in mine) == mine[-1].completion.text
    assert {delta.row for delta in deltas[:4]} == {0, 1, 2, 3}


def test_the_canonical_cell_gives_five_texts_of_30_tokens(model, tokenizer):
    prompt = "If computers were one day"
    outs = generate(model, tokenizer, prompt, num_samples=5, max_length=30, stop_ids=(), seed=1)
    assert [len(out.prompt_ids) + len(out.ids) for out in outs] == [30] * 5
    assert len({out.text for out in outs}) == 5


# ---- ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("fg", "bcde"),
        ("b", ""),
        ("efghi", "bcd"),
        (["xy", "hi", "k"], "bcdefg"),
        (["ghi", "h"], "bcdefg"),
    ],
)
def test_a_stop_string_ends_the_text_before_it(alphabet, tokenizer, stop, text):
    out = generate(alphabet, tokenizer, "a", stop=stop, temperature=0)
    assert (out.text, out.finish_reason) == (text, "stop")
    assert tokenizer.decode(out.ids).startswith(text)
    assert len(out.logprobs) == len(out.ids)


def test_a_stop_string_that_does_not_come_is_not_held_back_at_the_end(alphabet, tokenizer):
    out = generate(alphabet, tokenizer, "a", stop=["fgx", "gh"], temperature=0, max_new_tokens=6)
    assert (out.text, out.finish_reason) == ("bcdefg", "length")


def test_a_stop_string_in_the_last_token_is_a_stop(alphabet, tokenizer):
    out = generate(alphabet, tokenizer, "a", stop="fg", temperature=0, max_new_tokens=6)
    assert (out.text, out.finish_reason) == ("bcde", "stop")


def test_a_stop_string_in_the_prompt_does_not_count(alphabet, tokenizer):
    out = generate(alphabet, tokenizer, "ab", stop="bc", temperature=0, max_new_tokens=3)
    assert (out.text, out.finish_reason) == ("cde", "length")


def test_a_stop_token_is_not_text(alphabet, tokenizer):
    [d] = tokenizer.encode("d")
    out = generate(alphabet, tokenizer, "a", stop_ids=[d], temperature=0)
    assert (out.text, out.ids[-1], out.finish_reason) == ("bc", d, "stop")


def test_the_end_of_text_ends_a_text_unless_other_tokens_are_named(alphabet, tokenizer):
    last = tokenizer.vocab_size - 2  # the end of text follows it
    prompt = tokenizer.decode([last])
    assert tokenizer.encode(prompt) == [last]
    assert generate(alphabet, tokenizer, prompt, temperature=0).ids == [tokenizer.eos_id]
    out = generate(alphabet, tokenizer, prompt, temperature=0, stop_ids=(), max_new_tokens=3)
    assert (out.ids, out.text) == ([tokenizer.eos_id, 0, 1], '<|endoftext|>!"')


def test_other_rows_go_on_when_one_meets_a_stop_string(alphabet, tokenizer):
    outs = generate(alphabet, tokenizer, ["a", "m", "e"], stop="h", temperature=0, max_new_tokens=8)
    assert [out.text for out in outs] == ["bcdefg", "nopqrstu", "fg"]
    assert [out.finish_reason for out in outs] == ["stop", "length", "stop"]


def test_half_a_character_at_the_end_is_shown_as_one(alphabet, tokenizer):
    [e] = [id for id in range(256) if tokenizer.token_bytes(id) == b"\xc3"]
    before = successor_model(tokenizer.vocab_size)
    with torch.no_grad():  # after "a" comes half a character
        before.output_weight.zero_()
        before.output_weight[e] = 10.0 * before.wte.weight[tokenizer.encode("a")[0]]
    out = generate(before, tokenizer, "a", max_new_tokens=1, temperature=0)
    assert (out.ids, out.text) == ([e], "\ufffd")
    assert list(stream(before, tokenizer, "a", max_new_tokens=1, temperature=0)) == ["\ufffd"]


@pytest.mark.parametrize("settings", [{"max_new_tokens": 0}, {"max_length": 1}])
def test_no_room_gives_empty_texts(model, tokenizer, settings):
    outs = generate(model, tokenizer, ["dog", "girl"], num_samples=2, **settings)
    assert [(out.text, out.ids, out.finish_reason) for out in outs] == [("", [], "length")] * 4
