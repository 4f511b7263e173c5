"""The filters beside transformers' processors: the same tokens, the same odds, the same draws."""

import pytest
import torch

from cleangpt2.sampler.choice import draw
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sampler.decode import Decoding
from cleangpt2.sampler.noise import generator
from cleangpt2.sampler.pipeline import constrain, warp
from tests.helpers import require
from tests.stubs import constant_model

SETTINGS = [
    {"temperature": 0.7},
    {"temperature": 1.9},
    {"top_k": 1},
    {"top_k": 13},
    {"top_p": 0.03},
    {"top_p": 0.9},
    {"temperature": 0.6, "top_k": 40},
    {"temperature": 1.3, "top_p": 0.8},
    {"top_k": 25, "top_p": 0.7},
    {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
]


def warped(logits, config):
    """Logits after the processors that transformers' `generate` makes of these settings."""
    process = require("transformers.generation.logits_process")
    if config.temperature != 1:
        logits = process.TemperatureLogitsWarper(float(config.temperature))(None, logits)
    if config.top_k is not None:
        logits = process.TopKLogitsWarper(config.top_k)(None, logits)
    if config.top_p is not None:
        logits = process.TopPLogitsWarper(config.top_p)(None, logits)
    return logits


def chi_square(counts, probabilities):
    """Pearson's statistic as a standard normal deviate (Wilson and Hilferty, 1931).

    Tokens expected less than 5 times count as one.
    """
    expected = probabilities * counts.sum()
    assert counts[probabilities == 0].sum() == 0, "a forbidden token was drawn"
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    counts, expected = counts[expected > 0], expected[expected > 0]
    if (free := len(counts) - 1) == 0:
        return 0.0
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return ((statistic / free) ** (1 / 3) - (1 - 2 / (9 * free))) / (2 / (9 * free)) ** 0.5


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("V", "scale"), [(300, 3.0), (5000, 4.0), (5000, 0.5)])
def test_same_tokens_and_odds_as_transformers(settings, V, scale):
    config = SamplingConfig(**settings)
    logits = torch.randn(8, V) * scale
    ours, theirs = warp(logits, config), warped(logits.clone(), config)
    assert torch.equal(ours > -torch.inf, theirs > -torch.inf)
    torch.testing.assert_close(ours.softmax(-1), theirs.softmax(-1), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_draws_follow_the_softmax_of_transformers(settings):
    config = SamplingConfig(**settings)
    logits = torch.randn(1, 120) * 2
    n = 20_000
    u = torch.from_numpy(generator(1, [5, 6], 0).random(n))
    draws = draw(warp(logits, config).softmax(-1).expand(n, -1), u)
    counts = draws.bincount(minlength=120).double()
    assert chi_square(counts, warped(logits, config).double().softmax(-1)[0]) < 4


@pytest.mark.parametrize("settings", SETTINGS[::3], ids=str)
def test_tokens_of_the_whole_sampler_follow_the_softmax_of_transformers(settings):
    config = SamplingConfig(**settings, seed=5, max_new_tokens=50)
    logits = torch.randn(1, 120) * 2
    model = constant_model(logits[0].tolist(), n_positions=64)
    decoding = Decoding(model, [[1], [2, 3]], config, num_samples=60)
    while decoding.active:
        decoding.step()
    new = [id for row, ids in enumerate(decoding.sequences) for id in ids[1 + row // 60 :]]
    assert len(new) == 2 * 60 * 50
    counts = torch.tensor(new).bincount(minlength=120).double()
    assert chi_square(counts, warped(logits, config).double().softmax(-1)[0]) < 4


COMBINED = [
    {"temperature": 0.8, "min_p": 0.05},
    {"temperature": 1.3, "typical_p": 0.7},
    {"top_k": 40, "min_p": 0.02, "typical_p": 0.9, "logit_bias": ((7, 2.0), (8, -torch.inf))},
    {"temperature": 1.2, "top_p": 0.9, "repetition_penalty": 1.5, "banned": ((9,), (1, 2))},
    {"frequency_penalty": 0.7, "presence_penalty": 0.4, "temperature": 0.9},
    {"no_repeat_ngram": 1, "frequency_penalty": -1.0, "top_k": 30},
]


@pytest.mark.parametrize("settings", COMBINED, ids=str)
def test_every_token_of_the_whole_sampler_follows_its_own_softmax(settings):
    # The past changes the odds, so each step of each row has its own. A token's place in its own
    # distribution function, with a second uniform number inside its step of it, is uniform if and
    # only if it was drawn with these odds.
    config = SamplingConfig(**settings, seed=6, max_new_tokens=30)
    logits = torch.randn(1, 60) * 2
    model = constant_model(logits[0].tolist(), n_positions=64)
    prompts = [[1], [2, 3], [1, 2]]
    decoding = Decoding(model, prompts, config, num_samples=40)
    places, source = [], torch.Generator().manual_seed(1)
    while rows := decoding.active:
        texts = [list(decoding.sequences[row]) for row in rows]
        starts = [len(prompts[row // 40]) for row in rows]
        changed = constrain(logits.expand(len(rows), -1), texts, config, starts=starts)
        odds = warp(changed, config).double().softmax(-1)
        chosen = torch.tensor([[token.id] for token in decoding.step()])
        # Shuffled ids, so that the sampler's own way through the vocabulary does not show.
        shuffled = torch.randperm(60, generator=source)
        where = shuffled.argsort()[chosen]
        height = odds.gather(1, chosen)
        assert (height > 0).all()
        below = odds[:, shuffled].cumsum(1).gather(1, where) - height
        inside = torch.rand(height.shape, generator=source, dtype=torch.float64)
        places += (below + inside * height)[:, 0].tolist()
    assert len(places) == 3 * 40 * 30
    counts = torch.tensor(places).histc(50, 0, 1).double()
    assert abs(chi_square(counts, torch.full((50,), 1 / 50, dtype=torch.float64))) < 4


@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        ({"repetition_penalty": 1.5, "top_k": 30, "min_p": 0.01}, [1, 2, 1, 5]),
        ({"frequency_penalty": 0.7, "presence_penalty": 0.4, "typical_p": 0.8}, [1, 2, 2, 5, 5]),
        ({"no_repeat_ngram": 2, "banned": ((8,), (5, 3)), "temperature": 0.7}, [5, 4, 6, 5]),
        ({"logit_bias": ((7, 3.0),), "min_p": 0.1, "temperature": 1.5}, [1]),
    ],
)
def test_draws_with_many_settings_follow_the_softmax_of_the_filtered_logits(settings, ids):
    config = SamplingConfig(**settings)
    logits = constrain(torch.randn(1, 60) * 2, [ids], config, starts=[1])
    odds = warp(logits, config).softmax(-1)
    u = torch.from_numpy(generator(2, ids, 0).random(20_000))
    counts = draw(odds.expand(20_000, -1), u).bincount(minlength=60).double()
    assert chi_square(counts, odds.double()[0]) < 4


def test_the_chi_square_above_notices_wrong_odds():
    logits = torch.randn(1, 120) * 2
    u = torch.from_numpy(generator(1, [5, 6], 0).random(20_000))
    counts = draw(logits.softmax(-1).expand(20_000, -1), u).bincount(minlength=120).double()
    assert chi_square(counts, (logits / 1.1).double().softmax(-1)[0]) > 8
