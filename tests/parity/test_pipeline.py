"""Random combinations of settings beside the list of processors that transformers makes of them.

Where we part from transformers on purpose, and these combinations therefore do not go:

- A single stop id among the banned is dropped there in silence; we refuse it at once.
- Where nothing is left to choose, greedy takes id 0 there and sampling crashes; we say what did it.
- `forced_bos_token_id` acts there on a prompt of one token alone, ours on the first tokens of any
  response, and ours may be several.
- With beams, transformers' top-k, top-p, min-p and typical keep one token more than there are
  stop ids; our beams do not use them.
- Of equally likely tokens at the edge of top-p, which ones stay is chance there; we keep the
  smallest ids. Their logits are compared without their places.
"""

import random

import pytest
import torch

from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sampler.pipeline import constrain, run_filters, warp
from tests.helpers import require

transformers = require("transformers")

V, STOPS, START = 40, (3, 17), 6
KINDS = ("spread", "ties", "forbidden", "large")


def random_logits(kind, B):
    logits = torch.randn(B, V) * (1e4 if kind == "large" else 3)
    if kind == "ties":
        return logits.round()
    if kind == "forbidden":
        return logits.masked_fill(torch.rand(B, V) < 0.3, -torch.inf)
    return logits


def random_settings(source):
    """Each setting is on in about half of the combinations."""
    every = {
        "temperature": source.choice([0.3, 0.7, 1.4]),
        "top_k": source.choice([1, 5, 20, 99]),
        "top_p": source.choice([0.1313, 0.7071, 0.9577]),
        "min_p": source.choice([0.001, 0.0513, 0.3]),
        "typical_p": source.choice([0.2137, 0.7071, 0.9577]),
        "repetition_penalty": source.choice([0.7, 1.2, 2.0]),
        "no_repeat_ngram": source.choice([1, 2, 3]),
        "min_new_tokens": source.choice([2, 50]),
        "banned": source.sample([(5,), (7, 9), (1, 2, 4), (2, 9), (30,)], 3),
        "logit_bias": source.sample([(4, 2.5), (11, -3.0), (12, -torch.inf), (20, 7.0)], 2),
        "forced_start": (source.randrange(V),),
        "forced_end": source.choice([3, 21]),
    }
    chosen = {name: value for name, value in every.items() if source.random() < 0.5}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in chosen.items()}


def processors(model, config, *, start, end, custom=()):
    """What transformers' `generate` would do to the logits."""
    theirs = transformers.GenerationConfig(
        do_sample=True,
        num_beams=1,
        max_length=end,
        temperature=float(config.temperature),
        top_k=config.top_k or 0,
        top_p=1.0 if config.top_p is None else config.top_p,
        min_p=config.min_p,
        typical_p=1.0 if config.typical_p is None else config.typical_p,
        repetition_penalty=config.repetition_penalty,
        no_repeat_ngram_size=config.no_repeat_ngram or 0,
        min_new_tokens=config.min_new_tokens,
        bad_words_ids=[list(ban) for ban in config.banned] or None,
        sequence_bias={(id,): bias for id, bias in config.logit_bias} or None,
        forced_bos_token_id=config.forced_start[0] if config.forced_start else None,
        forced_eos_token_id=config.forced_end,
    )
    theirs._eos_token_tensor = torch.tensor(STOPS)
    return model._get_logits_processor(
        theirs, input_ids_seq_length=start, logits_processor=list(custom), device="cpu"
    )


@pytest.fixture(scope="module")
def model():
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=8, n_embd=4, n_layer=1, n_head=1,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def odd_ids_less_likely(ids, logits):
    """A processor of the user's own, as transformers calls it."""
    return logits - (torch.arange(V) % 2) * 1.5


@pytest.mark.parametrize("number", range(50))
def test_a_random_combination_gives_the_logits_of_transformers(model, number):
    source = random.Random(number)
    settings, kind = random_settings(source), KINDS[number % 4]
    config = SamplingConfig(**settings)
    # Forced ids act at the ends only, so both ends are among the lengths.
    end = 30
    start = 1 if config.forced_start else START
    custom = [odd_ids_less_likely] if number % 3 == 0 else []
    theirs = processors(model, config, start=start, end=end, custom=custom)
    for T in sorted({start, start + 1, source.randrange(start, end - 1), end - 2, end - 1}):
        ids = torch.randint(0, 12, (4, T))
        logits = random_logits(kind, 4)
        expected = theirs(ids, logits.clone()).log_softmax(-1)
        rows = ids.tolist()
        got = constrain(logits, rows, config, starts=[start] * 4, stop_ids=STOPS, ends=[end] * 4)
        got = run_filters(got, rows, [lambda x, i: odd_ids_less_likely(i, x)] if custom else [])
        got = warp(got, config).log_softmax(-1)
        if kind == "ties" and config.top_p is not None:
            got, expected = got.sort(-1).values, expected.sort(-1).values
        assert torch.equal(got > -torch.inf, expected > -torch.inf), (settings, T)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_the_combinations_have_every_setting_on_and_off():
    made = [random_settings(random.Random(number)) for number in range(50)]
    for name in set().union(*made):
        assert 10 < sum(name in settings for settings in made) < 40
