"""A number for each token from its logits, a chunk of tokens at a time.

What ``logprobs`` computes is a `Quantity`: its value and its gradient in the logits. Here are the
loop over chunks, the sums of gradients, and the two ways into autograd: `Sum` makes the gradients
while the logits are at hand, `Tokens` makes the logits anew when each token's share is known.

Letters: N tokens, C = n_embd, V = vocab_size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cleangpt2.model.linear import linear

CHUNK_LOGITS = {"cpu": 2**23}
"""Logits that exist at once. On a CPU 32 MiB in float32: what glibc's malloc hands out again
without asking the system for fresh pages, which would cost up to a tenth of the time."""

CHUNK_LOGITS_ELSEWHERE = 2**26
"""Matmuls on a graphics card want more rows at a time: 1,335 of GPT-2's vocabulary."""


class Quantity(NamedTuple):
    """A number of each token, from the log-probs (N, V) there and the token that came (N,)."""

    value: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]
    """Of the value in the logits, (N, V); uses up the memory of the log-probs."""


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
class Each:
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


class Sum(torch.autograd.Function):
    """The sum over the tokens; its gradients are made forward and scaled backward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, each: Each, *wanted: bool) -> Tensor:
        """The sum, and its gradients if they are wanted."""
        ctx.gradients = _Gradients(hidden, weight, each.wide, *wanted) if any(wanted) else None
        ctx.each, ctx.wanted = each, wanted
        ctx.save_for_backward(hidden, weight)
        return each.values(hidden, weight, ctx.gradients).sum()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients made forward, times what came from above."""
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:  # a second pass (retain_graph); the first took them along
            gradients = _Gradients(*ctx.saved_tensors, ctx.each.wide, *ctx.wanted)
            ctx.each.values(*ctx.saved_tensors, gradients)
        return (*gradients.scaled(upstream[0]), None, None, None)


class Tokens(torch.autograd.Function):
    """The quantity of each token; its gradients are made backward, when those of it are known."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, each: Each) -> Tensor:
        """The values alone."""
        ctx.each = each
        ctx.save_for_backward(hidden, weight)
        return each.values(hidden, weight)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients, from one of each value."""
        wanted = ctx.needs_input_grad[:2]
        gradients = ctx.each.backward(*ctx.saved_tensors, upstream[0], *wanted)
        return gradients.hidden, gradients.weight, None


def matmul_dtype(hidden: Tensor) -> torch.dtype:
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
