"""The choice of one token, and what is told of it.

Letters: B rows, V vocabulary.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have been chosen."""

    id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class Token:
    """One chosen token."""

    row: int
    """Which sequence it belongs to, in the order of prompts and samples."""
    id: int
    logprob: float
    """Log-probability in nats before temperature and filters: what the model itself says."""
    filtered_logprob: float = 0.0
    """Log-probability under the distribution that it was drawn from; 0 if greedy."""
    top: tuple[Alternative, ...] = ()
    """The likeliest tokens before temperature and filters, `top_logprobs` of them."""
    filtered_top: tuple[Alternative, ...] = ()
    """The likeliest after temperature and filters; fewer where no more are allowed."""


def likeliest(logprobs: Float[Tensor, "B V"], n: int) -> list[tuple[Alternative, ...]]:
    """The n likeliest tokens of each row, without those of probability 0.

    >>> likeliest(torch.tensor([[0.25, 0.75, 0.0]]).log(), 3)
    [(Alternative(id=1, logprob=-0.287...), Alternative(id=0, logprob=-1.386...))]
    """
    if n == 0:
        return [()] * len(logprobs)
    values, ids = logprobs.topk(min(n, logprobs.size(-1)))
    rows = zip(ids.tolist(), values.tolist(), strict=True)
    return [
        tuple(
            Alternative(id, logprob)
            for id, logprob in zip(*row, strict=True)
            if logprob > -torch.inf
        )
        for row in rows
    ]


def draw(odds: Float[Tensor, "B V"], u: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """One token a row with these probabilities, by inverting the CDF at u in [0, 1).

    The token is the first whose cumulative probability exceeds u, so a forbidden one, which adds
    nothing, is never drawn.

    >>> odds = torch.tensor([[0.5, 0.0, 0.5]])
    >>> [draw(odds, torch.tensor([u])).item() for u in (0.0, 0.49, 0.51, 0.99)]
    [0, 0, 2, 2]
    """
    # Metal has no float64; elsewhere it keeps 50,257 rounding errors out of the sum.
    wide = torch.float32 if odds.device.type == "mps" else torch.float64
    cdf = odds.cumsum(dim=-1, dtype=wide)
    total = cdf[:, -1:]
    # u < 1, but u * total may round up to total itself, which no token would exceed.
    target = torch.minimum(
        u[:, None].to(total) * total, torch.nextafter(total, torch.zeros_like(total))
    )
    return torch.searchsorted(cdf, target, right=True)[:, 0]
