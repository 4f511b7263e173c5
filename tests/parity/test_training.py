"""Ten steps of training against transformers' GPT-2 and torch's AdamW, in a loop of its own."""

import json
import math

import numpy as np
import pytest
import torch

from cleangpt2.data.batches import Batches
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training import pretrain as module
from cleangpt2.training.config import PretrainConfig
from tests.parity.twin import CONV1D, twin

MODEL = GPT2Config(
    vocab_size=211, n_positions=24, n_embd=48, n_layer=3, n_head=4,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
)  # fmt: skip
TOKENS = np.random.default_rng(0).zipf(1.3, size=4000).clip(max=211).astype(np.uint16) - 1
STEPS, B, T, LR, WARMUP, CLIP = 10, 8, 24, 3e-3, 3, 2.5


@pytest.fixture
def double():
    """Weights are made in float64 within the test."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def ours(folder, monkeypatch, **settings):
    """Losses, gradients before clipping and final weights of `pretrain`, by parameter."""
    gradients, clip = [], module.clip

    def watched(model, limit):
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
        return clip(model, limit)

    config = PretrainConfig(
        steps=STEPS, batch_size=B, context=T, optimizer="adamw", lr=LR, warmup=WARMUP, clip=CLIP,
        schedule="cosine", final_lr=0.1, weight_decay=0.2, beta1=0.85, beta2=0.97, **settings,
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(module, "clip", watched)
        model = module.pretrain(MODEL, config, TOKENS, folder)
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines], gradients, dict(model.named_parameters())


def theirs():
    """The same of transformers and torch, under our names and in our shapes."""
    torch.manual_seed(1)
    model = twin(GPT2(MODEL))
    named = {name.removeprefix("transformer."): p for name, p in model.named_parameters()}
    matrices = [p for name, p in named.items() if name.endswith(CONV1D)]
    rest = [p for name, p in named.items() if not name.endswith(CONV1D)]
    groups = [{"params": matrices, "weight_decay": 0.2}, {"params": rest, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=LR, betas=(0.85, 0.97), foreach=False)
    batches = Batches(TOKENS, B=B, T=T, seed=1)
    losses, gradients, norms = [], [], []
    for step in range(STEPS):
        lr = LR * (step + 1) / WARMUP
        if step >= WARMUP:
            cosine = math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))
            lr = LR * (0.1 + 0.9 * (1 + cosine) / 2)
        for group in adamw.param_groups:
            group["lr"] = lr
        inputs, targets = batches(step)
        logits = model(inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        adamw.zero_grad()
        loss.backward()
        gradients.append({name: in_our_shape(name, p.grad.clone()) for name, p in named.items()})
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)))
        adamw.step()
        losses.append(loss.item())
    assert min(norms) < CLIP < max(norms)  # or clipping would not be compared
    return losses, gradients, {name: in_our_shape(name, p) for name, p in named.items()}


def in_our_shape(name, tensor):
    return tensor.t() if name.endswith(CONV1D) else tensor


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_ten_steps_in_float64_are_those_of_transformers(
    tmp_path, monkeypatch, double, micro_batches
):
    losses, gradients, weights = ours(tmp_path, monkeypatch, micro_batches=micro_batches)
    expected_losses, expected_gradients, expected_weights = theirs()
    assert losses == pytest.approx(expected_losses, rel=0, abs=1e-10)
    for mine, reference in zip(gradients, expected_gradients, strict=True):
        assert largest_difference(mine, reference) < 1e-10
    assert largest_difference(weights, expected_weights) < 1e-10


def test_ten_steps_in_float32_have_the_losses_of_transformers(tmp_path, monkeypatch):
    losses, gradients, _ = ours(tmp_path, monkeypatch)
    expected_losses, expected_gradients, _ = theirs()
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    for mine, reference in zip(gradients, expected_gradients, strict=True):
        assert largest_difference(mine, reference) < 1e-5


def test_one_by_eight_and_eight_by_one_have_the_same_losses(tmp_path, monkeypatch):
    runs = [
        ours(tmp_path / str(n), monkeypatch, micro_batches=n, recompute=n == 8)[0]
        for n in (1, 2, 8)
    ]
    assert runs[1] == pytest.approx(runs[0], abs=1e-5)
    assert runs[2] == pytest.approx(runs[0], abs=1e-5)
