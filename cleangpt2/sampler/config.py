"""Settings of one generation; no torch, so that ``--help`` is quick."""

import math
from dataclasses import dataclass
from typing import Literal

from cleangpt2.errors import SamplingError
from cleangpt2.sampler.checks import Bounds, check_bans, check_bias, check_fields, check_ids

PastContext = Literal["stop", "slide", "slide-fast"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How the next token is chosen, and when to stop."""

    max_new_tokens: int = 200
    """Most tokens to add to a prompt."""
    min_new_tokens: int = 0
    """Least tokens to add: before them no stop token is chosen."""
    max_length: int | None = None
    """Most tokens of prompt and response together; `None` (`--max-length None`) sets no limit."""
    temperature: float = 1.0
    """Divides the logits: below 1 bolder in its favourites, above 1 more varied; 0 is greedy."""
    top_k: int | None = None
    """Choose among the k likeliest tokens only; `None` (`--top-k None`) allows every token."""
    top_p: float | None = None
    """Choose among the fewest tokens whose probabilities reach p (nucleus); `None`: all."""
    min_p: float | None = None
    """Choose among tokens at least this fraction as likely as the likeliest; `None`: all."""
    typical_p: float | None = None
    """As top-p, but the tokens nearest the expected surprise first (typical); `None`: all."""
    repetition_penalty: float = 1.0
    """Above 1 tokens of prompt and response come again less, below 1 more often; 1 is off."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit for each time it stands in the response; 0 is off."""
    presence_penalty: float = 0.0
    """Taken once from the logit of a token that stands in the response; 0 is off."""
    no_repeat_ngram: int | None = None
    """No n tokens in a row come twice, the prompt's included; `None` allows it."""
    banned: tuple[tuple[int, ...], ...] = ()
    """Sequences of ids that are never completed."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(id, bias) pairs: added to the logits of these ids; -inf forbids one."""
    forced_start: tuple[int, ...] = ()
    """Ids that the response begins with, whatever else forbids them."""
    forced_end: int | None = None
    """Id that a response cut by its limit ends with; `None` leaves the choice to the model."""
    top_logprobs: int = 0
    """How many of the likeliest tokens to name beside each chosen one."""
    seed: int | None = None
    """Fixes every random choice; `None` draws a seed, which the completion then names."""
    past_context: PastContext = "stop"
    """At the model's context limit: stop with reason "length", or forget the oldest tokens.

    "slide" forgets one token at a time and re-reads the whole context for every new token: exact,
    at the cost of having no cache. "slide-fast" forgets the older half at once, re-reads the newer
    half and goes on with the cache: about one token more to read for each new one, and the model
    sees between a half and all of its context.
    """

    def __post_init__(self) -> None:
        check_fields(self, _BOUNDS)
        if 0 < self.temperature < 1e-30:  # float32 would round it to 0 and divide by that
            raise SamplingError(
                f"temperature is {self.temperature}; give 0 (greedy) or at least 1e-30"
            )
        if self.min_new_tokens > self.max_new_tokens:
            raise SamplingError(
                f"min_new_tokens is {self.min_new_tokens} and max_new_tokens "
                f"{self.max_new_tokens}: raise the second"
            )
        check_ids("forced_start", self.forced_start)
        check_bans(self.banned)
        check_bias(self.logit_bias)


_BOUNDS: Bounds = {
    "max_new_tokens": (lambda n: n >= 0, "be 0 or more"),
    "min_new_tokens": (lambda n: n >= 0, "be 0 or more"),
    "max_length": (lambda n: n >= 1, "be at least 1"),
    "temperature": (lambda t: 0 <= t < math.inf, "be a number from 0 on (0 is greedy)"),
    "top_k": (lambda k: k >= 1, "be at least 1, or None (`--top-k None`) to allow every token"),
    "top_p": (lambda p: 0 < p <= 1, "lie in (0, 1]"),
    "min_p": (lambda p: 0 <= p <= 1, "lie in [0, 1]"),
    "typical_p": (lambda p: 0 < p <= 1, "lie in (0, 1]"),
    "repetition_penalty": (lambda x: 0 < x < math.inf, "be above 0 (1 is off)"),
    "frequency_penalty": (math.isfinite, "be finite (0 is off)"),
    "presence_penalty": (math.isfinite, "be finite (0 is off)"),
    "no_repeat_ngram": (lambda n: n >= 1, "be at least 1, or None to allow every repetition"),
    "forced_end": (lambda id: id >= 0, "be an id, from 0 on"),
    "top_logprobs": (lambda n: n >= 0, "be 0 or more"),
    "seed": (lambda n: 0 <= n < 1 << 64, "lie in 0 to 2**64 - 1"),
}


MAX_BEAMS = 1024
"""Most texts that a search reads at once; a slip in `num_beams` would ask for all memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BeamConfig:
    """How beam search ranks texts, and when it stops."""

    max_new_tokens: int = 200
    """Most tokens to add to the prompt."""
    num_beams: int = 4
    """Texts that compete at every step; time and memory grow with them."""
    num_return: int = 1
    """How many of the best texts to give."""
    length_penalty: float = 1.0
    """Texts rank by log-probability / length ** length_penalty: above 0 favours long texts."""
    early_stopping: Literal[False, True, "never"] = False
    """Whether to stop as soon as `num_beams` texts have ended.

    `False` searches on while an open text would beat the worst of them if it ended now, "never"
    while one could still beat it at any length.
    """
    num_groups: int = 1
    """Diverse beam search: groups of beams, each kept away from the tokens of those before it."""
    diversity_penalty: float = 0.0
    """Taken from a token's log-probability for each beam of an earlier group that just chose it."""

    def __post_init__(self) -> None:
        check_fields(self, _BEAM_BOUNDS)
        if self.num_return > self.num_beams:
            raise SamplingError(
                f"num_return is {self.num_return} of {self.num_beams} beams: raise num_beams"
            )
        if self.num_beams % self.num_groups:
            raise SamplingError(
                f"num_groups is {self.num_groups}; it must divide num_beams ({self.num_beams})"
            )
        if self.diversity_penalty and self.num_groups == 1:
            raise SamplingError(
                f"diversity_penalty is {self.diversity_penalty} and there is only one group: "
                "set num_groups"
            )


_BEAM_BOUNDS: Bounds = {
    "max_new_tokens": (lambda n: n >= 0, "be 0 or more"),
    "num_beams": (lambda n: 1 <= n <= MAX_BEAMS, f"lie in 1 to {MAX_BEAMS}"),
    "num_return": (lambda n: n >= 1, "be at least 1"),
    "length_penalty": (lambda x: -10 <= x <= 10, "lie in -10 to 10 (0 leaves length out)"),
    # To a Literal, 1 is True.
    "early_stopping": (lambda x: isinstance(x, bool | str), "be False, True or 'never'"),
    "num_groups": (lambda n: n >= 1, "be at least 1"),
    "diversity_penalty": (lambda x: 0 <= x <= 1e6, "lie in 0 to 1e6 (a thousand forbids)"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ContrastiveConfig:
    """How contrastive search weighs what is likely against what repeats."""

    max_new_tokens: int = 200
    """Most tokens to add to the prompt."""
    top_k: int = 4
    """Choose among the k likeliest tokens; time and memory grow with k."""
    alpha: float = 0.6
    """Weight of the penalty for repeating, against 1 - alpha for being likely; 0 is greedy."""

    def __post_init__(self) -> None:
        check_fields(self, _CONTRASTIVE_BOUNDS)


_CONTRASTIVE_BOUNDS: Bounds = {
    "max_new_tokens": (lambda n: n >= 0, "be 0 or more"),
    "top_k": (lambda k: 1 <= k <= MAX_BEAMS, f"lie in 1 to {MAX_BEAMS}"),
    "alpha": (lambda a: 0 <= a <= 1, "lie in [0, 1]"),
}
