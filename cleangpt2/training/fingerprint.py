"""What a run was made from, in a few characters: enough to notice that it is something else.

Not every byte is read, for a run is taken up again in a second, whatever it trains on.
"""

import hashlib

import numpy as np

from cleangpt2.data.batches import Tokens
from cleangpt2.model.gpt2 import GPT2

WINDOWS, WIDTH = 256, 4096
"""So up to a million tokens every one counts."""

NUMBERS = 1024
"""Of each parameter."""


def of_tokens(tokens: Tokens) -> str:
    """Of a corpus: its length, and windows of it that lie evenly.

    A token more or less anywhere shifts all that follow, so most windows change with it. The same
    tokens in a prepared folder and in memory give the same.
    """
    digest = hashlib.sha256()
    last = max(0, len(tokens) - WIDTH)
    for start in np.linspace(0, last, WINDOWS, dtype=np.int64).tolist():
        digest.update(np.asarray(tokens[start : start + WIDTH], "<u4").tobytes())
    return f"{len(tokens)} tokens, {digest.hexdigest()[:16]}"


def of_weights(model: GPT2) -> str:
    """Of a model: numbers of every parameter that lie evenly."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        some = flat[:: max(1, flat.numel() // NUMBERS)].float().cpu().numpy()
        digest.update(name.encode() + np.asarray(some, "<f4").tobytes())
    return digest.hexdigest()[:16]
