"""Causal self-attention with an optional key/value cache.

The layer of GPT-2 (Radford et al., 2019). The cache saves work and never changes
the result; ``tests/model/test_cache.py`` holds it to that.

Letters: B batch, T new tokens, S visible tokens (past + new),
C = n_embd, H = n_head, D = C / H.
"""

from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cleangpt2.model.cache import LayerCache
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.linear import Linear

PATHS = ("causal", "mask", "plain")
"""Ways to compute attention, the quickest first: PyTorch's fused kernel with its own causal mask,
the same kernel with a mask of ours, and the formula written out in float32."""

Mask = Bool[Tensor, "B 1 T S"] | Float[Tensor, "B 1 T S"]
"""Which keys each query may see: True, or 0 where the others have -inf (see `additive`)."""


def trusted_paths(device: torch.device, dtype: torch.dtype) -> tuple[str, ...]:
    """The paths not known to be wrong there; ``selfcheck.py`` finds out what nobody knew.

    >>> trusted_paths(torch.device("mps"), torch.float16)
    ('mask', 'plain')
    """
    # On Metal `is_causal` leaks the future in half precision (pytorch#195910).
    leaks = device.type == "mps" and dtype != torch.float32
    return PATHS[1:] if leaks else PATHS


def additive(visible: Bool[Tensor, "B 1 T S"], dtype: torch.dtype) -> Float[Tensor, "B 1 T S"]:
    """The same mask as numbers to add to the scores: 0 where it is True and -inf elsewhere.

    PyTorch's kernels turn a mask of booleans into these in every layer, and keep each layer's for
    the backward pass; made once, they are kept once.

    >>> additive(torch.tensor([[[[True, False]]]]), torch.float32)
    tensor([[[[0., -inf]]]])
    """
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, -torch.inf)


def attention(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B H S D"],
    v: Float[Tensor, "B H S D"],
    *,
    scale: float,
    visible: Mask | None = None,
    dropout: float = 0.0,
    path: str = "causal",
) -> Float[Tensor, "B H T D"]:
    """Each query's mean of the values it may see, weighted by softmax(scale * q.k).

    The one place that knows PyTorch's mask rules.

    Args:
        visible: True where query t of row b may see key s, or the same mask made `additive` in
            the queries' data type. ``None`` means that the T queries are the last of the S tokens
            in every row, so query t sees keys up to S - T + t.
        dropout: Probability with which a weight is dropped.
        path: One of `PATHS`; one that is not to be trusted here gives way to ``mask``.
    """
    T, S = q.size(2), k.size(2)
    # PyTorch's `is_causal` counts queries from 0, so it is right only without a past.
    causal = path == "causal" and path in trusted_paths(q.device, q.dtype)
    if causal and visible is None and T == S:
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=T > 1, scale=scale, dropout_p=dropout
        )
    mask = visible
    if visible is None and T > 1:  # one lone query may see everything
        mask = q.new_ones(T, S, dtype=torch.bool).tril(S - T)
    if path == "plain":
        return _plain(q, k, v, mask, scale, dropout)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, dropout_p=dropout)


def _plain(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B H S D"],
    v: Float[Tensor, "B H S D"],
    mask: Bool[Tensor, "*rows T S"] | Float[Tensor, "B 1 T S"] | None,
    scale: float,
    dropout: float,
) -> Float[Tensor, "B H T D"]:
    """The formula itself, in float32 at least: slow, holds the whole map, trusts no kernel."""
    wide = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):  # it would go down again
        scores = (q.to(wide) @ k.to(wide).mT) * scale
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -torch.inf)
        elif mask is not None:
            scores = scores + mask
        weights = F.dropout(scores.softmax(dim=-1), dropout)
        return (weights @ v.to(wide)).to(q.dtype)


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a token sees itself and what came before."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.scale = config.attention_scale(layer)
        self.upcast = config.reorder_and_upcast_attn
        self.path = PATHS[0]
        self.attn_pdrop = config.attn_pdrop
        self.c_attn = Linear(C, 3 * C)  # Q, K and V in one matmul
        self.c_proj = Linear(C, C)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def heads(
        self, x: Float[Tensor, "B T C"]
    ) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B H T D"], Float[Tensor, "B H T D"]]:
        """Queries, keys and values of every head."""
        q, k, v = (t.unflatten(-1, (self.n_head, -1)) for t in self.c_attn(x).chunk(3, dim=-1))
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        cache: LayerCache | None = None,
        visible: Mask | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Mix the T new tokens with the S they may see.

        Args:
            x: Residual stream after ``ln_1``.
            cache: Past keys and values; extended in place. ``None`` means no past.
            visible: Which tokens each may see (see `attention`); a cache knows it by itself.
        """
        y = self.mix(*self.heads(x), cache, visible)
        return self.resid_dropout(self.c_proj(y))

    def mix(
        self,
        q: Float[Tensor, "B H T D"],
        k: Float[Tensor, "B H T D"],
        v: Float[Tensor, "B H T D"],
        cache: LayerCache | None = None,
        visible: Mask | None = None,
    ) -> Float[Tensor, "B T C"]:
        """What the T new tokens read from all S, the heads side by side."""
        if cache is not None:
            k, v, visible = cache.append(k, v)  # (B, H, S, D)
        dropout = self.attn_pdrop if self.training else 0.0
        attend = partial(
            attention, scale=self.scale, visible=visible, dropout=dropout, path=self.path
        )
        if self.upcast:
            with torch.autocast(q.device.type, enabled=False):  # it would go down again
                y = attend(q.float(), k.float(), v.float()).to(q.dtype)
        else:
            y = attend(q, k, v)
        return y.transpose(1, 2).flatten(2)

    def extra_repr(self) -> str:
        """What ``print(model)`` says of the parts that are no modules."""
        return f"n_head={self.n_head}, scale={self.scale:.4g}, attn_pdrop={self.attn_pdrop}"

    def weights(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B H T T"]:
        """The attention map of every head: row t says how much token t takes from each token.

        Written out, because the fused kernel in ``forward`` never holds the map.
        """
        q, k, _ = self.heads(x)
        T = q.size(2)
        future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
        scores = (q.float() @ k.float().mT) * self.scale
        return scores.masked_fill(future, -torch.inf).softmax(dim=-1).to(x.dtype)
