import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cleangpt2.data.batches import Batches
from cleangpt2.errors import ConfigError
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training.step import IGNORED, accumulate, summed_loss

MODEL = GPT2Config(
    vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=2,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
)  # fmt: skip
TOKENS = np.random.default_rng(0).integers(64, size=2000).astype(np.uint16)
SCALER = torch.amp.GradScaler("cpu", enabled=False)


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def accumulated(model, parts, **settings):
    model.zero_grad()
    loss = accumulate(model, parts, **{"precision": "fp32", "scaler": SCALER} | settings)
    return loss, gradients(model)


@pytest.mark.parametrize("micro_batches", [2, 8])
def test_a_batch_in_parts_has_the_loss_and_the_gradient_of_the_whole(micro_batches):
    model = GPT2(MODEL).double()
    batches = Batches(TOKENS, B=8, T=16, seed=1)
    whole, gradient = accumulated(model, [batches(3)])
    parts = [batches(3, rows) for rows in batches.share(micro_batches=micro_batches)]
    loss, in_parts = accumulated(model, parts)
    assert loss == pytest.approx(whole, rel=1e-12)
    torch.testing.assert_close(in_parts, gradient, rtol=0, atol=1e-10)


def test_the_mean_is_over_the_targets_of_all_parts():
    """Not a mean of means, which would give the lone target of the second part a half."""
    model = GPT2(MODEL).double()
    inputs, targets = torch.randint(64, (2, 4, 16)).unbind()
    targets[2:] = IGNORED
    targets[3, 5] = 7
    logits = model(inputs).flatten(0, 1)
    expected = F.cross_entropy(logits, targets.flatten())
    loss, in_parts = accumulated(model, [(inputs[:2], targets[:2]), (inputs[2:], targets[2:])])
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    model.zero_grad()
    expected.backward()
    torch.testing.assert_close(in_parts, gradients(model), rtol=0, atol=1e-10)


def test_a_batch_that_cannot_be_parted_is_refused():
    with pytest.raises(ConfigError, match="batch of 8 .* 3 micro-batches"):
        Batches(TOKENS, B=8, T=16, seed=1).share(micro_batches=3)


def test_the_loss_is_the_sum_over_tokens_and_halves_are_near_it():
    model = GPT2(MODEL)
    inputs, targets = torch.randint(64, (2, 3, 16)).unbind()
    loss = summed_loss(model, inputs, targets)
    by_hand = -model(inputs).log_softmax(-1).gather(-1, targets[..., None]).sum()
    torch.testing.assert_close(loss, by_hand)
    for precision in ("bf16", "fp16"):
        half = summed_loss(model, inputs, targets, precision=precision)
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, loss, rtol=1e-2, atol=0)
        assert not torch.equal(half, loss)


def test_a_scaler_multiplies_the_gradient_and_not_the_loss():
    model = GPT2(MODEL)
    parts = [torch.randint(64, (2, 4, 16)).unbind()]
    loss, gradient = accumulated(model, parts)
    scaled, larger = accumulated(model, parts, scaler=torch.amp.GradScaler("cpu", init_scale=256.0))
    assert scaled == loss
    torch.testing.assert_close(larger, 256 * gradient)
