"""Causal self-attention with an optional key/value cache.

The layer of GPT-2 (Radford et al., 2019). The cache saves work and never changes
the result; ``tests/model/test_cache.py`` holds it to that.

Letters: B batch, T new tokens, S visible tokens (past + new),
C = n_embd, H = n_head, D = C / H.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cleangpt2.model.cache import LayerCache
from cleangpt2.model.config import GPT2Config


def attention(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B H S D"],
    v: Float[Tensor, "B H S D"],
    *,
    scale: float,
    visible: Bool[Tensor, "B 1 T S"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "B H T D"]:
    """Each query's mean of the values it may see, weighted by softmax(scale * q.k).

    The one place that knows PyTorch's mask rules.

    Args:
        visible: True where query t of row b may see key s. ``None`` means that the T queries
            are the last of the S tokens in every row, so query t sees keys up to S - T + t.
        dropout: Probability with which a weight is dropped.
    """
    T, S = q.size(2), k.size(2)
    if visible is not None:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=visible, scale=scale, dropout_p=dropout
        )
    # PyTorch's `is_causal` counts queries from 0, so it is right only without a past. On Metal
    # it leaks the future in half precision (pytorch#195910). One lone query may see everything.
    leaks = q.device.type == "mps" and q.dtype != torch.float32
    if T == S and not leaks:
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=T > 1, scale=scale, dropout_p=dropout
        )
    mask = None if T == 1 else q.new_ones(T, S, dtype=torch.bool).tril(S - T)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, dropout_p=dropout)


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a token sees itself and what came before."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.scale = config.attention_scale(layer)
        self.upcast = config.reorder_and_upcast_attn
        self.attn_pdrop = config.attn_pdrop
        self.c_attn = nn.Linear(C, 3 * C)  # Q, K and V in one matmul
        self.c_proj = nn.Linear(C, C)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def heads(
        self, x: Float[Tensor, "B T C"]
    ) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B H T D"], Float[Tensor, "B H T D"]]:
        """Queries, keys and values of every head."""
        q, k, v = (t.unflatten(-1, (self.n_head, -1)) for t in self.c_attn(x).chunk(3, dim=-1))
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def forward(
        self, x: Float[Tensor, "B T C"], cache: LayerCache | None = None
    ) -> Float[Tensor, "B T C"]:
        """Mix the T new tokens with the S they may see.

        Args:
            x: Residual stream after ``ln_1``.
            cache: Past keys and values; extended in place. ``None`` means no past.
        """
        q, k, v = self.heads(x)
        visible = None
        if cache is not None:
            k, v, visible = cache.append(k, v)  # (B, H, S, D)
        dropout = self.attn_pdrop if self.training else 0.0
        if self.upcast:
            with torch.autocast(x.device.type, enabled=False):  # it would go down again
                q, k, v = q.float(), k.float(), v.float()
                y = attention(q, k, v, scale=self.scale, visible=visible, dropout=dropout)
        else:
            y = attention(q, k, v, scale=self.scale, visible=visible, dropout=dropout)
        y = y.to(x.dtype).transpose(1, 2).flatten(2)  # heads side by side: (B, T, C)
        return self.resid_dropout(self.c_proj(y))

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
