"""Attention is a masked, weighted mean, for every shape and every way to ask for the mask."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from cleangpt2.model import attention as attention_module
from cleangpt2.model.attention import CausalSelfAttention, attention
from cleangpt2.model.config import GPT2Config
from tests.model.hard_weights import deviation, hard_model

CONFIG = GPT2Config(vocab_size=50, n_positions=32, n_embd=32, n_layer=3, n_head=4)


def by_loop(q: Tensor, k: Tensor, v: Tensor, scale: float, visible: Tensor) -> Tensor:
    """What ``attention`` promises, one query at a time, in float64."""
    y = torch.zeros(q.shape, dtype=torch.float64)
    for b, h, t in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        seen = visible[b, 0, t]
        scores = scale * (k[b, h, seen].double() @ q[b, h, t].double())
        y[b, h, t] = scores.softmax(dim=-1) @ v[b, h, seen].double()
    return y


def random_qkv(T: int, S: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Queries, keys and values of 2 rows and 3 heads; the scores spread widely."""
    return tuple(3 * torch.randn(2, 3, length, 8, dtype=dtype) for length in (T, S, S))


def last_queries(T: int, S: int) -> Tensor:
    """T queries at the end of S tokens: query t sees keys up to S - T + t."""
    t, s = torch.meshgrid(torch.arange(T), torch.arange(S), indexing="ij")
    return (s <= S - T + t).expand(2, 1, T, S)


@pytest.mark.parametrize("scale", [1.0, 8**-0.5])
@pytest.mark.parametrize(("T", "S"), [(1, 1), (2, 2), (7, 7), (1, 7), (3, 7), (6, 7)])
def test_agrees_with_a_loop_over_queries(T, S, scale):
    q, k, v = random_qkv(T, S)
    expected = by_loop(q, k, v, scale, last_queries(T, S))
    assert deviation(attention(q, k, v, scale=scale), expected) < 1e-5


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [(torch.float64, 1e-7), (torch.float32, 1e-6), (torch.float16, 3e-3), (torch.bfloat16, 3e-2)],
)
@pytest.mark.parametrize(("T", "S"), [(5, 5), (2, 5), (1, 5)])
def test_agrees_with_the_loop_in_every_data_type(T, S, dtype, bound):
    q, k, v = random_qkv(T, S, dtype)
    y = attention(q, k, v, scale=0.3)
    assert y.dtype == dtype
    assert deviation(y, by_loop(q, k, v, 0.3, last_queries(T, S))) < bound


@pytest.mark.parametrize(("T", "S"), [(1, 6), (3, 6), (6, 6)])
def test_a_given_mask_decides_alone_and_each_row_has_its_own(T, S):
    q, k, v = random_qkv(T, S)
    visible = torch.rand(2, 1, T, S) < 0.5
    visible[..., 0] = True
    y = attention(q, k, v, scale=0.3, visible=visible)
    assert deviation(y, by_loop(q, k, v, 0.3, visible)) < 1e-5


@pytest.mark.parametrize(("T", "S"), [(1, 1), (7, 7), (3, 7)])
def test_a_mask_that_says_the_default_changes_nothing(T, S):
    q, k, v = random_qkv(T, S)
    masked = attention(q, k, v, scale=0.3, visible=last_queries(T, S))
    assert deviation(masked, attention(q, k, v, scale=0.3)) < 1e-6


@pytest.mark.parametrize("S", [4, 9])
def test_the_first_of_the_last_queries_sees_itself_and_no_later_key(S):
    """It is where an upper-left mask, PyTorch's own idea of causal, goes wrong."""
    q, k, v = random_qkv(3, S)
    first = attention(q, k, v, scale=0.3)[:, :, :1]
    alone = attention(q[:, :, :1], k[:, :, : S - 2], v[:, :, : S - 2], scale=0.3)
    assert deviation(first, alone) < 1e-6


def test_the_first_token_takes_its_own_value():
    q, k, v = random_qkv(5, 5)
    assert torch.equal(attention(q, k, v, scale=0.3)[:, :, 0], v[:, :, 0])


def test_huge_scores_stay_finite():
    q, k, v = random_qkv(6, 6)
    y = attention(1e4 * q, 1e4 * k, v, scale=1.0)
    assert y.isfinite().all()
    assert deviation(y, by_loop(1e4 * q, 1e4 * k, v, 1.0, last_queries(6, 6))) < 1e-5


def test_heads_are_neighbouring_channels():
    """Head h reads channels h * D to (h + 1) * D, so it feels no change in another's values."""
    layer = hard_model(CONFIG).h[0].attn
    layer.c_proj = torch.nn.Identity()
    x = torch.randn(1, 6, 32)
    before = layer(x)
    layer.c_attn.weight.data[64 + 8 : 64 + 16] += 1.0  # the values of head 1, D = 8
    changed = (layer(x) != before).any(dim=(0, 1))
    assert changed.nonzero().flatten().tolist() == list(range(8, 16))


def test_weights_are_the_map_that_forward_applies():
    model = hard_model(CONFIG)
    x = torch.randn(2, 9, 32)
    for block in model.h:
        layer = block.attn
        maps = layer.weights(x)
        _, _, v = layer.heads(x)
        y = layer.c_proj((maps @ v).transpose(1, 2).flatten(2))
        assert deviation(y, layer(x)) < 1e-5
        assert maps.triu(1).count_nonzero() == 0
        torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, 4, 9))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_have_the_models_data_type(dtype):
    layer = hard_model(CONFIG).to(dtype).h[0].attn
    assert layer.weights(torch.randn(1, 5, 32, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("layer", [0, 2])
def test_the_scale_follows_the_switches(layer):
    for by_layer in (False, True):
        for scaled in (False, True):
            config = dataclasses.replace(
                CONFIG, scale_attn_by_inverse_layer_idx=by_layer, scale_attn_weights=scaled
            )
            expected = (1 / math.sqrt(8) if scaled else 1.0) / (layer + 1 if by_layer else 1)
            assert CausalSelfAttention(config, layer).scale == pytest.approx(expected)


@pytest.fixture
def seen_dtypes(monkeypatch) -> list[torch.dtype]:
    """The data types in which ``attention`` multiplies, autocast considered."""
    seen = []

    def spy(q, k, v, **kwargs):
        seen.append((q @ k.mT).dtype)
        return attention(q, k, v, **kwargs)

    monkeypatch.setattr(attention_module, "attention", spy)
    return seen


@pytest.mark.parametrize("upcast", [False, True])
def test_upcast_computes_attention_in_float32_in_half_precision_and_under_autocast(
    upcast, seen_dtypes
):
    layer = hard_model(dataclasses.replace(CONFIG, reorder_and_upcast_attn=upcast)).h[0].attn
    x = torch.randn(1, 5, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.to(torch.float16)(x.half()).dtype == torch.float16
    low = [torch.bfloat16, torch.float16]
    assert seen_dtypes == ([torch.float32] * 2 if upcast else low)


def test_dropout_acts_in_training_alone_and_keeps_the_mean():
    config = dataclasses.replace(CONFIG, attn_pdrop=0.3, resid_pdrop=0.0)
    layer = hard_model(config).h[0].attn
    x = torch.randn(1, 6, 32)
    exact = layer(x)
    assert torch.equal(layer(x), exact)
    layer.train()
    # The output is linear in the attention weights, so its mean is the output without dropout.
    samples = layer(x.expand(2000, 6, 32))
    error = samples.std(dim=0) / math.sqrt(len(samples))
    assert samples.std(dim=0).max() > 0.1
    assert ((samples.mean(dim=0) - exact[0]).abs() < 5 * error + 1e-5).all()


def test_residual_dropout_zeroes_its_share_and_scales_the_rest():
    config = dataclasses.replace(CONFIG, attn_pdrop=0.0, resid_pdrop=0.25)
    layer = hard_model(config).h[0].attn
    x = torch.randn(8, 32, 32)
    exact, dropped = layer(x), layer.train()(x)
    kept = dropped != 0
    assert 0.23 < 1 - kept.float().mean() < 0.27
    torch.testing.assert_close(dropped[kept], exact[kept] / 0.75)
