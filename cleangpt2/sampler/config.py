"""Settings of one generation; no torch, so that ``--help`` is quick."""

import dataclasses
import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

from cleangpt2.errors import SamplingError


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How the next token is chosen, and when to stop."""

    max_new_tokens: int = 200
    """Most tokens to add to a prompt."""
    max_length: int | None = None
    """Most tokens of prompt and response together; `None` (`--max-length None`) sets no limit."""
    temperature: float = 1.0
    """Divides the logits: below 1 bolder in its favourites, above 1 more varied; 0 is greedy."""
    top_k: int | None = None
    """Choose among the k likeliest tokens only; `None` (`--top-k None`) allows every token."""
    top_p: float | None = None
    """Choose among the fewest tokens whose probabilities reach p (nucleus sampling).

    `None` (`--top-p None`) allows every token.
    """
    seed: int | None = None
    """Fixes every random choice; `None` draws a seed, which the completion then names."""
    past_context: Literal["stop", "slide"] = "stop"
    """At the model's context limit: stop with reason "length", or forget the oldest tokens.

    Sliding re-reads the whole window for every token, so it costs as much as having no cache.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "past_context":
                _check_type(field.name, getattr(self, field.name), field.default)
        if self.max_new_tokens < 0:
            raise SamplingError(f"max_new_tokens is {self.max_new_tokens}; it must be 0 or more")
        if self.max_length is not None and self.max_length < 1:
            raise SamplingError(f"max_length is {self.max_length}; it must be at least 1")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise SamplingError(
                f"temperature is {self.temperature}; it must be a number from 0 on (0 is greedy)"
            )
        if 0 < self.temperature < 1e-30:  # float32 would round it to 0 and divide by that
            raise SamplingError(
                f"temperature is {self.temperature}; give 0 (greedy) or at least 1e-30"
            )
        if self.top_k is not None and self.top_k < 1:
            raise SamplingError(
                f"top_k is {self.top_k}; it must be at least 1, or None (`--top-k None`) "
                "to allow every token"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise SamplingError(f"top_p is {self.top_p}; it must lie in (0, 1]")
        if self.seed is not None and not 0 <= self.seed < 1 << 64:
            raise SamplingError(f"seed is {self.seed}; it must lie in 0 to 2**64 - 1")
        if self.past_context not in ("stop", "slide"):
            raise SamplingError(
                f"past_context is {self.past_context!r}; it must be 'stop' or 'slide'"
            )


def _check_type(name: str, value: object, default: object) -> None:
    """Refuse what is no number, and a fraction where the default is whole or stands for none."""
    whole = name not in ("temperature", "top_p")
    if value is None and default is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        kind = "a whole number" if whole else "a number"
        also = ", or None" if default is None else ""
        raise SamplingError(f"{name} is {value!r}, a {type(value).__name__}; give {kind}{also}")
