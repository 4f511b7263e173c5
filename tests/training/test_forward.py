import shutil

import pytest
import torch

from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training.forward import forward_pass
from cleangpt2.training.step import summed_loss
from tests.helpers import missing, run_python

MODEL = GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=4, n_head=2)


def kept_and_gradients(model, recompute):
    """Bytes that the forward pass keeps for the backward pass, and what comes of them."""
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.zero_grad()
    torch.manual_seed(3)  # dropout is on
    ids = torch.arange(64).reshape(4, 16)
    with forward_pass(model, recompute=recompute, compile=False):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = summed_loss(model, ids, ids)
        loss.backward()
    return sum(kept.values()), torch.cat([p.grad.flatten() for p in model.parameters()])


def test_recomputing_keeps_less_and_changes_nothing():
    model = GPT2(MODEL)
    plain, gradient = kept_and_gradients(model, recompute=False)
    small, same = kept_and_gradients(model, recompute=True)
    assert torch.equal(gradient, same)
    assert small < plain / 2
    assert kept_and_gradients(model, recompute=False)[0] == plain  # it is over after the block


COMPILED = """
import sys
import numpy as np
import torch
from cleangpt2.model.config import GPT2Config
from cleangpt2.training.config import PretrainConfig
from cleangpt2.training.pretrain import pretrain

shape = GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=1, n_head=2,
                   resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
tokens = np.tile(np.random.default_rng(0).permutation(64).astype(np.uint16), 40)
calls, original = [], torch.compile
torch.compile = lambda f: calls.append(1) or original(f)
results = []
for name in ("plain", "compiled"):
    config = PretrainConfig(steps=5, batch_size=4, context=16, optimizer="adamw", warmup=0,
                            compile=name == "compiled", eval_every=2)
    model = pretrain(shape, config, tokens, sys.argv[1] + "/" + name,
                     validate=lambda m: m([1, 2, 3]).sum().item())
    results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
assert len(calls) == 1 and "hidden" not in vars(model)
print((results[0] - results[1]).abs().max().item())
"""


@pytest.mark.slow
def test_a_compiled_run_ends_near_the_plain_one(tmp_path):
    if not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        missing("no C++ compiler")
    done = run_python("-c", COMPILED, str(tmp_path), timeout_s=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-4
