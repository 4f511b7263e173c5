"""Mistakes of a caller: each costs one clear line, before anything is sampled."""

import pytest

from cleangpt2.completion import generate, stream, stream_all
from cleangpt2.errors import ContextLengthError, SamplingError, TokenizerError
from tests.helpers import answers


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
        ("a", {"bans": "x"}, SamplingError, "Did you mean 'ban'"),
        ("a", {"ban": ["x", ""]}, SamplingError, "a ban is empty"),
        ("!?" * 100, {}, ContextLengthError, "200 tokens and the model's context holds 64"),
        (["a", "!?" * 100], {}, ContextLengthError, "200 tokens"),
        ("a", {"num_beams": 4}, SamplingError, "num_beams is a setting of beam_search; known here"),
        ("a", {"alpha": 0.6}, SamplingError, "alpha is a setting of contrastive_search"),
        ("!?" * 100, {}, ContextLengthError, "past_context='slide', or 'slide-fast'"),
        ("\ud800", {}, TokenizerError, "surrogate"),
        ("a", {"ban": "\ud800"}, TokenizerError, "surrogate"),
        ("a", {"stop": ["x", "\ud800"]}, TokenizerError, "surrogate"),
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
    "config(past_context='wrap')": "past_context is 'wrap'; it must be 'stop', 'slide' or "
    "'slide-fast'",
    "write('a', num_samples=2.5)": "num_samples is 2.5; give a whole number",
    "write('a', num_samples=True)": "num_samples is True; give a whole number",
    "write('a', stop=[5])": "stop string 5 is no text; token ids go to stop_ids",
    "write('a', stop=5)": "stop string 5 is no text; token ids go to stop_ids",
    "write('a', stop={'x': 1})": "stop string {'x': 1} is no text; token ids go to stop_ids",
    "write('a', stop=None, temperature=0, max_new_tokens=3).text": "bcd",
    "write('a', config={'top_k': 5})": "config is {'top_k': 5}, a dict; give a SamplingConfig, "
    "or its fields by name, such as top_k=5",
    "write('a', ban=5)": "ban 5 is no text; token ids go to banned",
    "write('a', bias=['b'])": "bias is ['b']; give numbers by text, such as {' dog': 2.5}",
    "write('a', bias={'b': 'much'})": "the bias of 'b' is 'much'; give a number",
    "write('a', bias={5: 1.0})": "bias moves texts, not 5; token ids go to logit_bias",
    "write('a', start=5)": "start 5 is no text; token ids go to forced_start",
    "write('a', forced_start=5)": "forced_start is 5; give a tuple of ids, such as (464, 3290)",
    "write('a', banned=[5])": "a sequence in banned is 5; give a tuple of ids, such as (464, 3290)",
    "write('a', logit_bias={'b': 1.0})": "logit_bias is (('b', 1.0),); give a tuple of (id, bias), "
    "such as ((464, -2.5),)",
    "write('a', filters=5)": "filter 5 is no function; give a list of functions",
    "write('a', filters=[None])": "filter None is no function; give a list of functions",
    "write('a', ban='x', stop_ids=5)": "stop_ids is 5; give a list of ids",
    "beam_search(model, tokenizer, ['a', 'b'])": "a search continues one prompt; call it once for "
    "each",
    "beam_search(model, tokenizer, 5)": "prompt 5 is a int, not text; for token ids use "
    "sampler.decode.Decoding",
    "beam_search(model, tokenizer, 'a', config={'num_beams': 2})": "config is {'num_beams': 2}, a "
    "dict; give a BeamConfig, or its fields by name, such as max_new_tokens=50",
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
from cleangpt2.completion import beam_search, generate
from cleangpt2.sampler.config import SamplingConfig as config
from cleangpt2.sampler.decode import Decoding
from tests.stubs import small_tokenizer, successor_model

tokenizer = small_tokenizer()
model = successor_model(tokenizer.vocab_size)
write = lambda *args, **settings: generate(model, tokenizer, *args, **settings)
"""


def test_values_of_the_wrong_type_get_one_clear_line_each():
    assert answers(SETUP, WRONG_TYPES) == WRONG_TYPES
