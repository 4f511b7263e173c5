"""A run that takes half a second, and ways to end it."""

import dataclasses

import numpy as np
import torch

from cleangpt2.model.config import GPT2Config
from cleangpt2.training import pretrain as module
from cleangpt2.training.config import PretrainConfig

MODEL = GPT2Config(
    vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
)
WITHOUT_DROPOUT = dataclasses.replace(MODEL, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
CONFIG = PretrainConfig(
    steps=20, batch_size=4, context=16, warmup=3, save_every=5, eval_every=10, lr=5e-3
)
TOKENS = np.tile(np.random.default_rng(0).permutation(64).astype(np.uint16), 40)


class Killed(Exception):
    """Stands for a process that dies."""


def die_at(monkeypatch, step, place="clip", module=module):
    original, calls = getattr(module, place), []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) > step:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(module, place, dying)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])
