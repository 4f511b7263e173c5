"""Every filter and penalty beside transformers' own processor, on the same logits and ids."""

from collections.abc import Callable

import pytest
import torch

from cleangpt2.sampler import filters, penalties
from tests.helpers import require

process = require("transformers.generation.logits_process")

V = 40
STOPS = [3, 17]
BANS = ((5,), (7, 9), (1, 2, 3), (2, 9), (30,), (9,))
BIAS = ((4, 2.5), (11, -3.0), (12, -torch.inf))

# name: ours, transformers'; both on (logits, ids as a tensor)
CASES: dict[str, tuple[Callable, Callable]] = {
    "top_k": (
        lambda logits, _: filters.top_k(logits, 7),
        lambda: process.TopKLogitsWarper(7),
    ),
    "top_p": (
        lambda logits, _: filters.top_p(logits, 0.8137),
        lambda: process.TopPLogitsWarper(0.8137),
    ),
    **{
        f"min_p {p}": (
            lambda logits, _, p=p: filters.min_p(logits, p),
            lambda p=p: process.MinPLogitsWarper(p),
        )
        for p in (0.0, 1e-9, 0.05, 0.3, 1.0)
    },
    **{
        f"typical {p}": (
            lambda logits, _, p=p: filters.typical(logits, p),
            lambda p=p: process.TypicalLogitsWarper(p),
        )
        for p in (0.0003, 0.2137, 0.9, 0.9999)
    },
    "logit_bias": (
        lambda logits, _: penalties.logit_bias(logits, BIAS),
        lambda: process.SequenceBiasLogitsProcessor({(id,): bias for id, bias in BIAS}),
    ),
    **{
        f"repetition_penalty {x}": (
            lambda logits, ids, x=x: penalties.repetition_penalty(logits, ids.tolist(), x),
            lambda x=x: process.RepetitionPenaltyLogitsProcessor(x),
        )
        for x in (0.5, 1.3, 4.0)
    },
    **{
        f"no_repeat_ngrams {n}": (
            lambda logits, ids, n=n: penalties.no_repeat_ngrams(logits, ids.tolist(), n),
            lambda n=n: process.NoRepeatNGramLogitsProcessor(n),
        )
        for n in (1, 2, 3, 4)
    },
    "banned": (
        lambda logits, ids: penalties.banned(logits, ids.tolist(), BANS),
        lambda: process.NoBadWordsLogitsProcessor([list(ban) for ban in BANS]),
    ),
    **{
        f"too_short {length}": (
            lambda logits, ids: penalties.too_short(logits, ids[:, 4:].tolist(), 8, STOPS),
            lambda: process.MinNewTokensLengthLogitsProcessor(4, 8, STOPS),
        )
        for length in ("",)
    },
}

LOGITS = {
    "spread": lambda B: torch.randn(B, V) * 3,
    "flat": lambda B: torch.randn(B, V) * 0.1,
    "large": lambda B: torch.randn(B, V) * 1e4,
    "some forbidden": lambda B: (torch.randn(B, V) * 3).masked_fill(
        torch.rand(B, V) < 0.3, -torch.inf
    ),
    "negative": lambda B: torch.randn(B, V).abs().neg() * 5,
}


@pytest.mark.parametrize("T", [1, 2, 5, 60])
@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("name", CASES)
def test_same_logits_as_the_processor_of_transformers(name, kind, T):
    ours, theirs = CASES[name]
    logits = LOGITS[kind](5)
    ids = torch.randint(0, 12, (5, T))  # few ids, so that much comes twice
    got, expected = ours(logits, ids), theirs()(ids, logits.clone())
    assert torch.equal(got > -torch.inf, expected > -torch.inf)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", [name for name in CASES if name != "top_p"])
def test_ties_are_kept_and_forbidden_as_transformers_does(name):
    # top_p parts equally likely tokens, and which of them go is chance in transformers.
    ours, theirs = CASES[name]
    logits = torch.randn(8, V).mul(2).round()
    ids = torch.randint(0, 12, (8, 30))
    assert torch.equal(ours(logits, ids), theirs()(ids, logits.clone()))


@pytest.mark.parametrize("p", [0.2, 0.9, 0.99])
@pytest.mark.parametrize("scale", [0.01, 0.5, 3.0])
def test_typical_is_right_where_a_thousand_tokens_do_not_reach_p(p, scale):
    logits = torch.randn(3, 5000) * scale
    got = filters.typical(logits, p)
    assert torch.equal(got, process.TypicalLogitsWarper(p)(None, logits.clone()))


def test_forced_ids_are_those_of_transformers():
    logits = torch.randn(3, V).masked_fill(torch.rand(3, V) < 0.3, -torch.inf)
    one = torch.ones(3, 1, dtype=torch.long)
    begun = process.ForcedBOSTokenLogitsProcessor(6)(one, logits.clone())
    assert torch.equal(penalties.forced(logits, [6] * 3), begun)
    ended = process.ForcedEOSTokenLogitsProcessor(9, 3)(one.expand(3, 8), logits.clone())
    assert torch.equal(penalties.forced(logits, [3] * 3), ended)
