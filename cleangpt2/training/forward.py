"""How the forward pass of training is run: compiled, and with or without its activations kept."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cleangpt2.model.cache import KVCache
from cleangpt2.model.gpt2 import GPT2


@contextmanager
def forward_pass(model: GPT2, *, recompute: bool, compile: bool) -> Generator[None, None, None]:
    """Within it ``model.hidden`` is run in these ways; after it, plainly again.

    Args:
        recompute: Keep the input of each block only, and compute the rest of its activations once
            more in the backward pass (Chen et al., 2016), dropout included: 4/3 of the arithmetic.
        compile: Compile while the model is in training mode. Validation and samples come in many
            shapes, each of which would be compiled anew.
    """
    if recompute:
        for block in model.h:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    if compile:
        plain, compiled = model.hidden, torch.compile(model.hidden)

        def hidden(
            ids: Tensor, cache: KVCache | None = None, *, documents: Tensor | None = None
        ) -> Tensor:
            way = compiled if model.training and cache is None else plain
            return way(ids, cache, documents=documents)

        model.hidden = hidden
    try:
        yield
    finally:
        for block in model.h if recompute else ():
            del block.forward
        if compile:
            del model.hidden
