"""Examples made by hand, and a model that learns them in a second."""

import dataclasses

import numpy as np
import torch

from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.sft.batches import Batches
from cleangpt2.sft.config import SFTConfig
from cleangpt2.sft.examples import fit
from cleangpt2.tokenizer.chat import Encoded

END = 0
MODEL = GPT2Config(
    vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=END,
    eos_token_id=END, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
)  # fmt: skip
CONFIG = SFTConfig(steps=12, batch_size=4, save_every=4, eval_every=6, lr=1e-3)


def encoded(prompt, answer):
    """A prompt and the answer to be learned, as ids."""
    ids = np.array([*prompt, *answer], np.int32)
    return Encoded(ids, np.arange(len(ids)) >= len(prompt))


def some(count=40, longest=30, seed=0):
    """Conversations of all lengths, each of which ends with `END`."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        n = int(rng.integers(4, longest + 1))
        prompt = int(rng.integers(1, n - 1))
        ids = rng.integers(1, 64, n).tolist()
        found.append(encoded(ids[:prompt], [*ids[prompt : n - 1], END]))
    return found


def batches(conversations=None, context=32, **settings):
    """Their rows, by default with the settings of `CONFIG`."""
    examples = fit(some() if conversations is None else conversations, context=context)
    return Batches(examples, dataclasses.replace(CONFIG, **settings))


def model(seed=0, **changes):
    """A model whose attention is far from even."""
    torch.manual_seed(seed)
    made = GPT2(dataclasses.replace(MODEL, **changes))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made
