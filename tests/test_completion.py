"""Text in, text out: what is streamed, what is cut off, and in which order results come."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from cleangpt2.completion import Completion, _Reader, generate, stream, stream_all
from cleangpt2.errors import ContextLengthError, SamplingError, TokenizerError
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.tokenizer.vocabulary import Vocabulary
from tests.helpers import answers
from tests.stubs import random_model, small_tokenizer, successor_model


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    """Any model: in float64, so that no text hangs on float noise; with padded vocabulary."""
    return random_model(tokenizer.vocab_size + 20, n_positions=64, dtype=torch.float64)


@pytest.fixture(scope="module")
def alphabet(tokenizer):
    """Writes "bcdefg..." after "a": the ids of the bytes follow the alphabet."""
    return successor_model(tokenizer.vocab_size)


# ---- one text -----------------------------------------------------------------------------


def test_one_prompt_gives_one_completion(alphabet, tokenizer):
    out = generate(alphabet, tokenizer, "a", max_new_tokens=4, temperature=0, seed=9)
    [a] = tokenizer.encode("a")
    ids = [a + 1, a + 2, a + 3, a + 4]
    assert out == Completion(
        prompt="a", text="bcde", prompt_ids=[a], ids=ids, logprobs=out.logprobs,
        finish_reason="length", sample=0, seed=9,
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


# ---- reading tokens into text -------------------------------------------------------------

# Tokens that end inside characters and inside stop strings: "abc", half an emoji, "b" + a quarter.
SPLITS = Tokenizer(
    Vocabulary.from_merges(
        [(b"a", b"b"), (b"ab", b"c"), (b"c", b"a"), (b"\xf0", b"\x9f"), (b"b", b"\xf0"),
         (b"\x99", b"\x82"), (b"\x99\x82", b"c")]
    )
)  # fmt: skip
IDS = [SPLITS.encode(text)[0] for text in "abc"] + list(range(256, 263))
BYTES = {SPLITS.token_bytes(id)[0]: id for id in range(256)}
IDS += [BYTES[byte] for byte in "🙂".encode()]
STOPS = st.lists(st.text("abc🙂", min_size=1, max_size=5), max_size=3)


def read(ids, stops):
    """The pieces that a reader gives out, the reader, and how many ids it was given."""
    reader, pieces = _Reader(SPLITS, stops), []
    for n, id in enumerate(ids, start=1):
        pieces.append(reader.push(id))
        if reader.stopped:
            return pieces, reader, n
    return [*pieces, reader.finish()], reader, len(ids)


def cut(text, stops):
    """The text before the stop string that is complete first, the longest of several."""
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return text[: min(ends)[1]] if ends else text


@example(SPLITS.encode("abc"), ["abc", "b"])  # one token; "b" is complete before "abc" is
@example(SPLITS.encode("abc"), ["bc", "abc"])
@given(st.lists(st.sampled_from(IDS), max_size=14), STOPS)
def test_a_reader_stops_where_the_whole_text_does(ids, stops):
    pieces, reader, _ = read(ids, stops)
    text = SPLITS.decode(ids)
    assert "".join(pieces) == reader.text == cut(text, stops)
    assert reader.stopped == any(stop in text for stop in stops)


@given(st.text("abc🙂", max_size=12), STOPS)
def test_a_reader_does_not_care_where_tokens_end(text, stops):
    for ids in (SPLITS.encode(text), [BYTES[byte] for byte in text.encode()]):
        assert read(ids, stops)[1].text == cut(text, stops)


@given(st.lists(st.sampled_from(IDS), max_size=14), STOPS)
def test_a_reader_holds_back_only_the_beginning_of_a_stop_string(ids, stops):
    reader = _Reader(SPLITS, stops)
    for n, id in enumerate(ids, start=1):
        reader.push(id)
        if reader.stopped:
            return
        sure = SPLITS.stream_decoder()
        held = "".join(map(sure.push, ids[:n])).removeprefix(reader.text)
        assert held == "" or any(s.startswith(held) and s != held for s in stops)


# ---- mistakes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "settings", "error", "message"),
    [
        ("a", {"top_k": 0}, SamplingError, "top_k is 0; it must be at least 1"),
        ("a", {"top_p": 1.1}, SamplingError, "top_p is 1.1; it must lie in"),
        ("a", {"temperature": -1.0}, SamplingError, "temperature is -1.0"),
        ("a", {"num_samples": 0}, SamplingError, "num_samples is 0; it must be at least 1"),
        ("a", {"stop": ""}, SamplingError, "a stop string is empty"),
        ("a", {"stop": ["x", ""]}, SamplingError, "a stop string is empty"),
        ("a", {"stop_ids": [999]}, SamplingError, "stop id 999 is never sampled"),
        ("a", {"temprature": 1}, SamplingError, "no .*'temprature'.* mean 'temperature'"),
        ("a", {"max_tokens": 1}, SamplingError, "Did you mean 'max_new_tokens'"),
        ("a", {"stop_id": 1}, SamplingError, "Did you mean 'stop_ids'"),
        ("!?" * 100, {}, ContextLengthError, "200 tokens and the model's context holds 64"),
        (["a", "!?" * 100], {}, ContextLengthError, "200 tokens"),
        ("\ud800", {}, TokenizerError, "surrogate"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_by_the_call_itself(
    model, tokenizer, prompt, settings, error, message
):
    with pytest.raises(error, match=message) as caught:
        stream_all(model, tokenizer, prompt, **settings)
    assert "\n" not in str(caught.value)
    with pytest.raises(error, match=message):
        generate(model, tokenizer, prompt, **settings)


@pytest.mark.parametrize("settings", [{"prompt": ["a", "b"]}, {"num_samples": 2}])
def test_stream_refuses_more_than_one_text(model, tokenizer, settings):
    with pytest.raises((SamplingError, TypeError), match="stream gives one text|prompt"):
        stream(model, tokenizer, **settings)


WRONG_TYPES = {
    "config(top_k=2.5)": "top_k is 2.5, a float; give a whole number, or None",
    "config(temperature='hot')": "temperature is 'hot', a str; give a number",
    "config(temperature=None)": "temperature is None, a NoneType; give a number",
    "config(top_p='0.9')": "top_p is '0.9', a str; give a number, or None",
    "config(seed='luck')": "seed is 'luck', a str; give a whole number, or None",
    "config(max_new_tokens=10.0)": "max_new_tokens is 10.0, a float; give a whole number",
    "config(max_length='30')": "max_length is '30', a str; give a whole number, or None",
    "config(past_context='wrap')": "past_context is 'wrap'; it must be 'stop' or 'slide'",
    "write('a', num_samples=2.5)": "num_samples is 2.5; give a whole number",
    "write('a', num_samples=True)": "num_samples is True; give a whole number",
    "write('a', stop=[5])": "stop string 5 is no text; token ids go to stop_ids",
    "write('a', stop=5)": "stop string 5 is no text; token ids go to stop_ids",
    "write('a', stop={'x': 1})": "stop string {'x': 1} is no text; token ids go to stop_ids",
    "write('a', stop=None, temperature=0, max_new_tokens=3).text": "bcd",
    "write('a', config={'top_k': 5})": "config is {'top_k': 5}, a dict; give a SamplingConfig, "
    "or its fields by name, such as top_k=5",
    "write({'a': 1})": "prompt {'a': 1} is a dict, not text; for token ids use "
    "sampler.decode.Decoding",
    "write('a', stop_ids=5)": "stop_ids is 5; give a list of ids",
    "write('a', stop_ids=['x'])": "stop id 'x' is never sampled; give ids from 0 to 299",
    "write(5)": "prompt 5 is a int, not text; for token ids use sampler.decode.Decoding",
    "write([5, 6])": "prompt 5 is a int, not text; for token ids use sampler.decode.Decoding",
    "write(b'a')": "prompt b'a' is a bytes, not text; for token ids use sampler.decode.Decoding",
    "write(['a', None])": "prompt None is a NoneType, not text; for token ids use "
    "sampler.decode.Decoding",
    "Decoding(model, [1, 2], config())": "prompt 1 is no list of ids; give a list of such lists",
    "config(temperature=np.float32(0.5), top_k=np.int64(3)).top_k": "3",
}
SETUP = """
import numpy as np
from cleangpt2.completion import generate
from cleangpt2.sampler.config import SamplingConfig as config
from cleangpt2.sampler.decode import Decoding
from tests.stubs import small_tokenizer, successor_model

tokenizer = small_tokenizer()
model = successor_model(tokenizer.vocab_size)
write = lambda *args, **settings: generate(model, tokenizer, *args, **settings)
"""


def test_values_of_the_wrong_type_get_one_clear_line_each():
    assert answers(SETUP, WRONG_TYPES) == WRONG_TYPES
