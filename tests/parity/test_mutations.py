"""The parity tests can fail: every mistake planted here moves the numbers they compare.

Each mutation is one that a port of GPT-2 has plausibly contained. It is planted into a sound
model, and the comparison of ``test_model.py`` must then exceed its tolerance well.
"""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cleangpt2.model import attention as attention_module
from cleangpt2.model.gpt2 import GPT2, Block
from tests.model.hard_weights import deviation, hard_model
from tests.parity.test_model import SMALL, TOLERANCE, assert_same, random_ids
from tests.parity.twin import twin

CLEAR = 5 * TOLERANCE
"""A mistake that shows by less than this might drown in another machine's rounding."""


def planted(model: GPT2, other: nn.Module) -> float:
    """How far the logits are from transformers'."""
    ids = random_ids(2, 48)
    with torch.no_grad():
        return deviation(model(ids), other(ids).logits)


def shifted_mask(offset: int):
    """Attention in which query t sees keys up to S - T + t + offset."""

    def wrong(q, k, v, *, scale, visible=None, dropout=0.0, path="causal"):
        T, S = q.size(2), k.size(2)
        mask = torch.ones(T, S, dtype=torch.bool).tril(S - T + offset)
        mask[:, 0] = True  # no row may be empty, or it would turn to NaN and prove nothing
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)

    return wrong


def rounded(q, k, v, *, scale, visible=None, dropout=0.0, path="causal"):
    """Attention in bfloat16."""
    q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).float()


def interleaved_heads(self, x):
    """Heads that take every H-th channel instead of D neighbours."""
    q, k, v = (t.unflatten(-1, (-1, self.n_head)).mT for t in self.c_attn(x).chunk(3, dim=-1))
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def post_norm(self, x, cache=None, visible=None):
    """The block of GPT-1: normalise after adding."""
    x = self.ln_1(x + self.attn(x, cache))
    return self.ln_2(x + self.mlp(x))


def parallel(self, x, cache=None, visible=None):
    """The block of GPT-J: attention and MLP read the same stream."""
    return x + self.attn(self.ln_1(x), cache) + self.mlp(self.ln_2(x))


class UnbiasedNorm(nn.LayerNorm):
    """A layer norm that divides the squares by C - 1."""

    def forward(self, x):
        std = (x.var(dim=-1, keepdim=True, correction=1) + self.eps).sqrt()
        return self.weight * (x - x.mean(dim=-1, keepdim=True)) / std + self.bias


def norms(model: GPT2) -> dict[str, nn.LayerNorm]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.LayerNorm)}


def set_everywhere(part: str, name: str, value):
    """A mutation that sets an attribute of one part (`attn`, `mlp`) of every block."""

    def plant(model, monkeypatch):
        for block in model.h:
            setattr(getattr(block, part), name, value(getattr(block, part)))

    return plant


def set_epsilon(epsilon: float):
    def plant(model, monkeypatch):
        for norm in norms(model).values():
            norm.eps = epsilon

    return plant


def transpose(model, monkeypatch):
    weight = model.h[1].attn.c_proj.weight
    weight.data = weight.data.t()


def zero_bias(model, monkeypatch):
    model.h[1].mlp.c_fc.bias.data.zero_()


def shift_positions(model, monkeypatch):
    model.wpe.weight.data = model.wpe.weight.data.roll(1, dims=0)


def drop_last_norm(model, monkeypatch):
    model.ln_f = nn.Identity()


def unbiased_norms(model, monkeypatch):
    for norm in norms(model).values():
        norm.__class__ = UnbiasedNorm


MUTATIONS = {
    "exact GELU for tanh": set_everywhere("mlp", "act", lambda mlp: nn.GELU()),
    "ReLU for GELU": set_everywhere("mlp", "act", lambda mlp: nn.ReLU()),
    "epsilon of T5": set_epsilon(1e-6),
    "epsilon of BERT": set_epsilon(1e-12),
    "variance divided by C - 1": unbiased_norms,
    "mask shows one future token": lambda model, monkeypatch: monkeypatch.setattr(
        attention_module, "attention", shifted_mask(1)
    ),
    "mask hides the token itself": lambda model, monkeypatch: monkeypatch.setattr(
        attention_module, "attention", shifted_mask(-1)
    ),
    "no mask": lambda model, monkeypatch: monkeypatch.setattr(
        attention_module, "attention", shifted_mask(48)
    ),
    "attention in bfloat16": lambda model, monkeypatch: monkeypatch.setattr(
        attention_module, "attention", rounded
    ),
    "missing scale": set_everywhere("attn", "scale", lambda attn: 1.0),
    "scale by C instead of D": set_everywhere("attn", "scale", lambda attn: 64**-0.5),
    "interleaved heads": lambda model, monkeypatch: monkeypatch.setattr(
        attention_module.CausalSelfAttention, "heads", interleaved_heads
    ),
    "untransposed weight": transpose,
    "missing bias": zero_bias,
    "positions off by one": shift_positions,
    "no final norm": drop_last_norm,
    "norm after adding": lambda model, monkeypatch: monkeypatch.setattr(
        Block, "forward", post_norm
    ),
    "attention and MLP in parallel": lambda model, monkeypatch: monkeypatch.setattr(
        Block, "forward", parallel
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_planted_mistake_shows_in_the_logits(name, monkeypatch):
    model = hard_model(SMALL)
    other = twin(model)
    assert planted(model, other) < TOLERANCE
    MUTATIONS[name](model, monkeypatch)
    assert planted(model, other) > CLEAR


@pytest.mark.parametrize("norm", norms(GPT2(SMALL)))
@pytest.mark.parametrize("epsilon", [1e-6, 1e-12])
def test_epsilon_shows_in_each_layer_norm_alone(norm, epsilon):
    model = hard_model(SMALL, quiet=True)
    other = twin(model)
    norms(model)[norm].eps = epsilon
    assert planted(model, other) > CLEAR


@pytest.mark.parametrize(
    ("switch", "wrong"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"scale_attn_weights": False}, "scale_attn_weights"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"activation_function": "gelu"}, "activation_function"),
        ({"layer_norm_epsilon": 1e-3}, "layer_norm_epsilon"),
    ],
)
def test_an_ignored_switch_shows(switch, wrong):
    model = hard_model(dataclasses.replace(SMALL, **switch))
    default = GPT2(dataclasses.replace(model.config, **{wrong: getattr(SMALL, wrong)})).eval()
    default.load_state_dict(model.state_dict(), strict=False)
    assert planted(default, twin(model)) > CLEAR


def test_a_gradient_lost_on_the_way_shows_though_the_logits_agree(monkeypatch):
    model = hard_model(SMALL)
    other, ids = twin(model), random_ids(2, 48)
    detached = property(lambda self: self.wte.weight.detach())
    monkeypatch.setattr(GPT2, "output_weight", detached)
    assert planted(model, other) < TOLERANCE
    with pytest.raises(AssertionError, match="wte"):
        assert_same(model, other, ids)
