"""Losses and log-probabilities of tokens, without the logits of a whole batch in memory.

The output layer compares the final stream with every word: 8 x 1,024 tokens of GPT-2 have
8,192 x 50,257 logits, 1.6 GB in float32, and their softmax and its gradient as much again. Nothing
but one number a token is wanted of them, so here a chunk of tokens gives its numbers, and its share
of the gradients, before the next chunk is looked at (as in Liger Kernel, Hsu et al., 2024).
``benchmarks/loss.py`` measures what that saves.

With z = W h, the logits at one token, and the softmax p over the first `vocab_size` of them:

    cross-entropy     -log p_y = logsumexp(z) - z_y
    its gradients     in z: g = p - onehot(y);  in h: W^T g;  in W: g h^T
    token log-prob    log p_y at temperature t: z_y / t - logsumexp(z / t)
    entropy           -sum_v p_v log p_v, also at temperature t

Letters: N tokens, B sequences of T tokens, C = n_embd, V = vocab_size.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cleangpt2.errors import ConfigError
from cleangpt2.model.chunked import Each, Quantity, Sum, Tokens, matmul_dtype


def linear_cross_entropy(
    hidden: Float[Tensor, "N C"],
    weight: Float[Tensor, "V C"],
    targets: Int[Tensor, " N"],
    *,
    vocab_size: int | None = None,
    ignore: int = -100,
    reduction: Literal["mean", "sum"] = "mean",
) -> Float[Tensor, ""]:
    """Cross-entropy in nats of ``hidden @ weight.T``, as ``F.cross_entropy`` would give it.

    The gradients are made in the same pass as the loss, while a chunk's logits are at hand.
    Logits are computed in autocast's type where that is on; loss and sums are at least float32.

    Args:
        hidden: The final stream at the tokens that predict, such as ``hidden(ids).flatten(0, 1)``.
        weight: The output layer, such as ``model.output_weight``.
        vocab_size: Rows of `weight` that are words; padding rows after them take no part.
        ignore: The target of tokens that do not count.
        reduction: "mean" is over the targets that count, and 0 where there is none.
    """
    if reduction not in ("mean", "sum"):
        raise ConfigError(f'reduction is "{reduction}": give "mean" or "sum"')
    each = Each(NLL, targets, vocab_size, matmul_dtype(hidden), ignore=ignore)
    # Inside a Function one cannot tell whether a gradient will be asked for; without this a
    # validation would pay for gradients.
    wanted = [torch.is_grad_enabled() and t.requires_grad for t in (hidden, weight)]
    total = Sum.apply(hidden, weight, each, *wanted)
    return total if reduction == "sum" else total / (targets != ignore).sum().clamp(min=1)


def token_logprobs(
    hidden: Float[Tensor, "B T C"],
    weight: Float[Tensor, "V C"],
    ids: Int[Tensor, "B T"],
    temperature: float = 1.0,
    *,
    vocab_size: int | None = None,
) -> Float[Tensor, "B T"]:
    """Log-probability of ``ids[:, t]`` as predicted from ``hidden[:, t]``; at least float32.

    Differentiable in `hidden` and `weight`; the backward pass computes each chunk's logits anew.

    Args:
        hidden: The final stream at the tokens *before* each of `ids`.
        ids: What came; -100 where nothing did, which gives 0.
        temperature: What the logits were divided by when the ids were sampled.
        vocab_size: Rows of `weight` that are words.
    """
    each = Each(NLL, ids.flatten(), vocab_size, matmul_dtype(hidden), temperature)
    return -Tokens.apply(hidden.flatten(0, 1), weight, each).unflatten(0, ids.shape)


def entropy(
    hidden: Float[Tensor, "B T C"],
    weight: Float[Tensor, "V C"],
    temperature: float = 1.0,
    *,
    vocab_size: int | None = None,
) -> Float[Tensor, "B T"]:
    """Entropy in nats of the next token's distribution at each token; at least float32.

    Differentiable, for an entropy bonus; arguments as in `token_logprobs`.
    """
    no_ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
    each = Each(ENTROPY, no_ids.flatten(), vocab_size, matmul_dtype(hidden), temperature)
    return Tokens.apply(hidden.flatten(0, 1), weight, each).unflatten(0, no_ids.shape)


def _nll(logprobs: Tensor, ids: Tensor) -> Tensor:
    """``-log p_y``."""
    return -logprobs.gather(1, ids.unsqueeze(1)).squeeze(1)


def _nll_gradient(logprobs: Tensor, ids: Tensor) -> Tensor:
    """``p - onehot(y)``."""
    p, chosen = logprobs.exp_(), ids.unsqueeze(1)
    return p.scatter_add_(1, chosen, p.new_full(chosen.shape, -1))


def _entropy(logprobs: Tensor, _: Tensor) -> Tensor:
    """``H = -sum_v p_v log p_v``."""
    return -logprobs.exp().mul_(logprobs).sum(dim=1)


def _entropy_gradient(logprobs: Tensor, ids: Tensor) -> Tensor:
    """``-p_v (log p_v + H)``."""
    H = _entropy(logprobs, ids).unsqueeze(1)
    return logprobs.exp().mul_(logprobs.add_(H)).neg_()


NLL = Quantity(_nll, _nll_gradient)
ENTROPY = Quantity(_entropy, _entropy_gradient)
