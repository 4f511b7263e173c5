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

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cleangpt2.errors import ConfigError
from cleangpt2.model.linear import linear

CHUNK_LOGITS = {"cpu": 2**23}
"""Logits that exist at once. On a CPU 32 MiB in float32: what glibc's malloc hands out again
without asking the system for fresh pages, which would cost up to a tenth of the time."""

CHUNK_LOGITS_ELSEWHERE = 2**26
"""Matmuls on a graphics card want more rows at a time: 1,335 of GPT-2's vocabulary."""


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
    each = _Each(NLL, targets, vocab_size, _matmul_dtype(hidden), ignore=ignore)
    # Inside a Function one cannot tell whether a gradient will be asked for; without this a
    # validation would pay for gradients.
    wanted = [torch.is_grad_enabled() and t.requires_grad for t in (hidden, weight)]
    total = _Sum.apply(hidden, weight, each, *wanted)
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
    each = _Each(NLL, ids.flatten(), vocab_size, _matmul_dtype(hidden), temperature)
    return -_Tokens.apply(hidden.flatten(0, 1), weight, each).unflatten(0, ids.shape)


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
    each = _Each(ENTROPY, no_ids.flatten(), vocab_size, _matmul_dtype(hidden), temperature)
    return _Tokens.apply(hidden.flatten(0, 1), weight, each).unflatten(0, no_ids.shape)


class Quantity(NamedTuple):
    """A number of each token, from the log-probs (N, V) there and the token that came (N,)."""

    value: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]
    """Of the value in the logits, (N, V); uses up the memory of the log-probs."""


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


class _Chunk(NamedTuple):
    """Some tokens of the batch."""

    rows: slice
    h: Tensor
    words: Tensor
    ids: Tensor
    counts: Tensor
    """1 where the token counts, 0 where it is ignored."""


class _Gradients:
    """Sums of both gradients in at least float32; ``None`` for one that nobody wants."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        wide: torch.dtype,
        hidden_wanted: bool,
        weight_wanted: bool,
    ) -> None:
        self.hidden = torch.zeros_like(hidden, dtype=wide) if hidden_wanted else None
        self.weight = torch.zeros_like(weight, dtype=wide) if weight_wanted else None

    def add(self, chunk: _Chunk, g: Tensor, scale: Tensor) -> None:
        """Pass on the gradients `g` in a chunk's logits, each token's times `scale` (N,)."""
        # The scale goes to the two narrow factors, not over all of `g`.
        g, scale = g.to(chunk.h.dtype), scale.unsqueeze(1)
        if self.hidden is not None:
            self.hidden[chunk.rows] = _wide_product(g, chunk.words).mul_(scale)
        if self.weight is not None:
            h = (chunk.h * scale).to(chunk.h.dtype)
            _add_product(self.weight[: len(chunk.words)], g.T, h)

    def scaled(self, by: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Both times a number; in place, as the weight's is large."""
        hidden, weight = (None if g is None else g.mul_(by) for g in (self.hidden, self.weight))
        return hidden, weight


@dataclass(frozen=True)
class _Each:
    """A quantity of each token: its values, its gradients, or both in one pass."""

    quantity: Quantity
    ids: Tensor
    vocab_size: int | None
    dtype: torch.dtype
    """Of the products; everything else is in `wide`."""
    temperature: float = 1.0
    ignore: int = -100

    @property
    def wide(self) -> torch.dtype:
        """At least float32."""
        return torch.promote_types(self.dtype, torch.float32)

    def values(self, hidden: Tensor, weight: Tensor, gradients: _Gradients | None = None) -> Tensor:
        """The quantity of every token (N,); the gradients of their sum are added to `gradients`."""
        values = hidden.new_empty(len(hidden), dtype=self.wide)
        for chunk in self._chunks(hidden, weight):
            values[chunk.rows] = self._values(chunk, gradients)
        return values

    def backward(
        self, hidden: Tensor, weight: Tensor, upstream: Tensor, *wanted: bool
    ) -> _Gradients:
        """The gradients from one of each value, `upstream` (N,); the logits are made anew."""
        gradients = _Gradients(hidden, weight, self.wide, *wanted)
        for chunk in self._chunks(hidden, weight):
            g = self.quantity.gradient(self._logprobs(chunk), chunk.ids)
            scale = upstream[chunk.rows] * chunk.counts / self.temperature
            gradients.add(chunk, g, scale)
            del g  # before the next logits are made
        return gradients

    def _chunks(self, hidden: Tensor, weight: Tensor) -> Iterator[_Chunk]:
        """The batch in pieces of at most `CHUNK_LOGITS` logits, or of one token."""
        words = weight[: self.vocab_size].to(self.dtype)
        counts = self.ids != self.ignore
        ids, ones = self.ids.long().masked_fill(~counts, 0), counts.to(self.wide)
        limit = CHUNK_LOGITS.get(hidden.device.type, CHUNK_LOGITS_ELSEWHERE)
        size = max(1, limit // len(words))
        for start in range(0, len(hidden), size):
            rows = slice(start, start + size)
            h = hidden[rows].to(self.dtype)
            yield _Chunk(rows, h, words, ids[rows], ones[rows])

    def _values(self, chunk: _Chunk, gradients: _Gradients | None) -> Tensor:
        """Of a chunk; a function of its own, so that its log-probs go before the next are made."""
        logprobs = self._logprobs(chunk)
        values = self.quantity.value(logprobs, chunk.ids).masked_fill_(chunk.counts == 0, 0)
        if gradients is not None:
            g = self.quantity.gradient(logprobs, chunk.ids)
            gradients.add(chunk, g, chunk.counts / self.temperature)
        return values

    def _logprobs(self, chunk: _Chunk) -> Tensor:
        """Of every word after each token of a chunk, (n, V)."""
        with torch.autocast(chunk.h.device.type, enabled=False):  # `dtype` says it already
            logits = linear(chunk.h, chunk.words, None).to(self.wide)
        if self.temperature != 1:
            logits /= self.temperature
        return logits.log_softmax(dim=1)


class _Sum(torch.autograd.Function):
    """The sum over the tokens; its gradients are made forward and scaled backward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, each: _Each, *wanted: bool) -> Tensor:
        ctx.gradients = _Gradients(hidden, weight, each.wide, *wanted) if any(wanted) else None
        ctx.each, ctx.wanted = each, wanted
        ctx.save_for_backward(hidden, weight)
        return each.values(hidden, weight, ctx.gradients).sum()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:  # a second pass (retain_graph); the first took them along
            gradients = _Gradients(*ctx.saved_tensors, ctx.each.wide, *ctx.wanted)
            ctx.each.values(*ctx.saved_tensors, gradients)
        return (*gradients.scaled(upstream[0]), None, None, None)


class _Tokens(torch.autograd.Function):
    """The quantity of each token; its gradients are made backward, when those of it are known."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, each: _Each) -> Tensor:
        ctx.each = each
        ctx.save_for_backward(hidden, weight)
        return each.values(hidden, weight)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:2]
        gradients = ctx.each.backward(*ctx.saved_tensors, upstream[0], *wanted)
        return gradients.hidden, gradients.weight, None


def _matmul_dtype(hidden: Tensor) -> torch.dtype:
    """The type in which autocast, or this tensor without it, would have the output layer."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """``total += a @ b``, where `total` is at least float32."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += _wide_product(a, b)


def _wide_product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in at least float32: a sum over many tokens would leave float16's range."""
    with torch.autocast(a.device.type, enabled=False):
        if a.dtype in (torch.float32, torch.float64):
            return a @ b
        if a.is_cuda:
            return torch.mm(a, b, out_dtype=torch.float32)
        return a.float() @ b.float()
