"""Pure functions on logits: each forbids or reweighs tokens, none chooses one.

These look at a token's probability alone; ``penalties`` looks at what was said before it. A
forbidden token has logit -inf. Letters: B rows, V vocabulary.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def temperature(logits: Float[Tensor, "B V"], t: float) -> Float[Tensor, "B V"]:
    """Divide by t > 0: the softmax sharpens below 1 and flattens above.

    The largest logit moves to 0 first, which no softmax notices: a tiny t then drives the others
    to -inf, which is right, instead of the largest to +inf, which is NaN.

    >>> temperature(torch.tensor([[1.0, 2.0]]), 0.5)
    tensor([[-2.,  0.]])
    """
    return (logits - logits.amax(dim=-1, keepdim=True)) / t


def top_k(logits: Float[Tensor, "B V"], k: int) -> Float[Tensor, "B V"]:
    """Keep the k largest logits, and any equal to the smallest of them (Fan et al., 2018).

    >>> top_k(torch.tensor([[1.0, 3.0, 2.0]]), 2)
    tensor([[-inf, 3., 2.]])
    """
    if k >= logits.size(-1):
        return logits
    smallest = logits.topk(k).values[..., -1:]
    return logits.masked_fill(logits < smallest, -torch.inf)


def top_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Keep the likeliest tokens until their probabilities add up to p (Holtzman et al., 2020).

    The token that reaches p is kept, so at least one always is; of equally likely tokens the
    one with the smaller id goes first.

    >>> top_p(torch.tensor([[0.5, 0.2, 0.3]]).log(), 0.7).exp()
    tensor([[0.5000, 0.0000, 0.3000]])
    """
    if p >= 1:
        return logits
    largest, sums = _largest_reaching(logits, p)
    n = (sums < p).sum(dim=-1, keepdim=True) + 1  # how many to keep
    least = largest.gather(-1, n.clamp(max=largest.size(-1)) - 1)
    above, tied = logits > least, logits == least
    room = n - above.sum(dim=-1, keepdim=True)
    return logits.masked_fill(~(above | (tied & (tied.cumsum(dim=-1) <= room))), -torch.inf)


def _largest_reaching(
    logits: Float[Tensor, "B V"], p: float
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
    """The largest logits, falling, and the running sums of their probabilities, up to p or beyond.

    Nearly always a thousand tokens reach p; to sort all 50,257 takes as long as the whole model.
    """
    total = logits.logsumexp(dim=-1, keepdim=True)
    largest = logits.topk(min(1024, logits.size(-1))).values
    sums = (largest - total).exp().cumsum(dim=-1)
    if (sums[:, -1] < p).any():
        largest = logits.sort(dim=-1, descending=True).values
        sums = (largest - total).exp().cumsum(dim=-1)
    return largest, sums


def min_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Keep tokens at least p times as likely as the likeliest (Nguyen et al., 2024).

    Where the model is sure few remain, where it is not many: the limit follows the distribution.

    >>> min_p(torch.tensor([[0.5, 0.2, 0.3]]).log(), 0.5).exp()
    tensor([[0.5000, 0.0000, 0.3000]])
    """
    if p == 0:
        return logits
    limit = logits.amax(dim=-1, keepdim=True) + math.log(p)  # a ratio is a difference of logits
    return logits.masked_fill(logits < limit, -torch.inf)


def typical(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Keep tokens whose surprise is nearest the expected one, until they add up to p.

    Locally typical sampling (Meister et al., 2022, equation 10): the surprise of a token is
    -log of its probability, and its expectation the entropy. The likeliest token may go, where
    it says less than is usual here. Of tokens equally far the last are all kept.

    The surprises here are 0.7, 1.2 and 2.3 nats, their mean 1.17:

    >>> typical(torch.tensor([[0.5, 0.3, 0.1, 0.1]]).log(), 0.2).exp()
    tensor([[0.0000, 0.3000, 0.0000, 0.0000]])
    """
    if p >= 1:
        return logits
    logprobs = logits.log_softmax(dim=-1)
    entropy = -(logprobs * logprobs.exp()).nansum(dim=-1, keepdim=True)  # 0 * -inf counts as 0
    distance = (logprobs + entropy).abs()  # infinite where forbidden, so those come last
    # Nearly always a thousand tokens reach p, as for top-p.
    nearest, sums = _nearest_until(distance, logprobs, min(1024, logits.size(-1)))
    if (sums[:, -1] < p).any():
        nearest, sums = _nearest_until(distance, logprobs, logits.size(-1))
    last = (sums < p).sum(dim=-1, keepdim=True).clamp(max=sums.size(-1) - 1)
    return logits.masked_fill(distance > nearest.gather(-1, last), -torch.inf)


def _nearest_until(
    distance: Float[Tensor, "B V"], logprobs: Float[Tensor, "B V"], n: int
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
    """The n smallest distances, rising, and the running sums of their probabilities."""
    if n == distance.size(-1):
        nearest, ids = distance.sort(dim=-1)
    else:
        nearest, ids = distance.topk(n, largest=False)
    return nearest, logprobs.gather(-1, ids).exp().cumsum(dim=-1)


def vocabulary(logits: Float[Tensor, "B V"], size: int) -> Float[Tensor, "B V"]:
    """Forbid ids from `size` on: rows that pad the embedding to a rounder number.

    >>> vocabulary(torch.tensor([[1.0, 2.0, 3.0]]), 2)
    tensor([[1., 2., -inf]])
    """
    if size >= logits.size(-1):
        return logits
    padding = torch.arange(logits.size(-1), device=logits.device) >= size
    return logits.masked_fill(padding, -torch.inf)
