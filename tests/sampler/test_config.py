"""Settings out of range cost one line that names the value and the limit."""

import dataclasses
import math

import pytest

from cleangpt2.errors import SamplingError
from cleangpt2.sampler.config import BeamConfig, SamplingConfig
from tests.helpers import unchecked

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_p": -0.1}, r"min_p is -0.1; it must lie in \[0, 1\]"),
        ({"min_p": 1.1}, r"min_p is 1.1; it must lie in \[0, 1\]"),
        ({"typical_p": 0.0}, r"typical_p is 0.0; it must lie in \(0, 1\]"),
        ({"typical_p": NAN}, "typical_p is nan"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty is 0.0; it must be above 0 \(1 is off"),
        ({"repetition_penalty": INF}, "repetition_penalty is inf"),
        ({"frequency_penalty": NAN}, "frequency_penalty is nan; it must be finite"),
        ({"presence_penalty": -INF}, "presence_penalty is -inf; it must be finite"),
        ({"no_repeat_ngram": 0}, "no_repeat_ngram is 0; it must be at least 1, or None"),
        ({"min_new_tokens": -1}, "min_new_tokens is -1; it must be 0 or more"),
        ({"min_new_tokens": 300}, "min_new_tokens is 300 and max_new_tokens 200: raise the second"),
        ({"top_logprobs": -1}, "top_logprobs is -1; it must be 0 or more"),
        ({"forced_end": -1}, "forced_end is -1; it must be an id, from 0 on"),
        ({"banned": ((),)}, "a sequence in banned is empty; leave it out"),
        ({"banned": ((-1,),)}, r"a sequence in banned is \(-1,\); give a tuple of ids"),
        ({"forced_start": (True,)}, r"forced_start is \(True,\); give a tuple of ids"),
        ({"logit_bias": ((1, INF),)}, "logit_bias of id 1 is inf; it must be finite, or -inf"),
        ({"logit_bias": ((1, NAN),)}, "logit_bias of id 1 is nan"),
        ({"logit_bias": ((-1, 1.0),)}, r"give a tuple of \(id, bias\), such as"),
        ({"logit_bias": ((1, 1.0), (1, 2.0))}, "an id stands in it twice"),
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_named_with_its_limit(settings, message):
    with pytest.raises(SamplingError, match=message) as caught:
        SamplingConfig(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("penalty", [-1.0, 1e39, INF, NAN])  # float32 makes 1e39 infinite
def test_a_diversity_penalty_that_would_make_nan_is_refused(penalty):
    with pytest.raises(SamplingError, match=r"diversity_penalty is .*; it must lie in 0 to 1e6"):
        BeamConfig(num_groups=2, diversity_penalty=penalty)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_p": "0.1"}, "min_p is '0.1', a str; give a number, or None"),
        ({"no_repeat_ngram": 2.0}, "no_repeat_ngram is 2.0, a float; give a whole number, or None"),
        ({"repetition_penalty": None}, "repetition_penalty is None, a NoneType; give a number"),
        ({"repetition_penalty": True}, "repetition_penalty is True, a bool; give a number"),
        ({"past_context": "fast"}, "is 'fast'; it must be 'stop', 'slide' or 'slide-fast'"),
        ({"past_context": None}, "is None; it must be 'stop', 'slide' or 'slide-fast'"),
        ({"banned": [[1, 2]]}, r"banned is \[\[1, 2\]\]; give a tuple of tuples of ids"),
        ({"banned": (5,)}, "a sequence in banned is 5; give a tuple of ids"),
        ({"forced_start": "ab"}, "forced_start is 'ab'; give a tuple of ids"),
        ({"logit_bias": {5: 1.0}}, r"logit_bias is {5: 1.0}; give a tuple of \(id, bias\)"),
        ({"logit_bias": ((5, "x"),)}, r"give a tuple of \(id, bias\)"),
    ],
    ids=str,
)
def test_a_setting_of_another_type_is_named(settings, message):
    config = unchecked("cleangpt2.sampler.config").SamplingConfig
    with pytest.raises(SamplingError, match=message) as caught:
        config(**settings)
    assert "\n" not in str(caught.value)


def test_the_widest_settings_are_accepted():
    SamplingConfig(
        min_p=0.0, typical_p=1.0, repetition_penalty=1e-3, frequency_penalty=-2.0,
        presence_penalty=2, no_repeat_ngram=1, min_new_tokens=200, banned=((1,), (2, 3)),
        logit_bias=((4, -math.inf), (5, 100)), forced_start=(7, 8), forced_end=0, top_logprobs=5,
        past_context="slide-fast",
    )  # fmt: skip


def test_a_configuration_can_be_compared_hashed_and_changed():
    config = SamplingConfig(banned=((1, 2),), seed=1)
    assert hash(config) == hash(SamplingConfig(banned=((1, 2),), seed=1))
    assert dataclasses.replace(config, banned=()) == SamplingConfig(seed=1)
