"""Room for tokens that a vocabulary has gained."""

from dataclasses import replace

import torch

from cleangpt2.model.gpt2 import GPT2


@torch.no_grad()
def with_tokens(model: GPT2, known: int, vocab_size: int) -> GPT2:
    """A model with a row for each token of a vocabulary that has grown.

    A new row is the mean of the old ones (Taori et al., 2023, "Alpaca"): a token nobody has seen is
    then as likely as tokens are on average, and a random one could be far likelier.

    Args:
        model: Stays as it is; given back itself if there is nothing to add.
        known: Tokens of the old vocabulary; rows after them are padding.
        vocab_size: Tokens of the new one.
    """
    if vocab_size <= known:
        return model
    rows = max(vocab_size, model.config.vocab_size)
    grown = GPT2(replace(model.config, vocab_size=rows)).to(model.device, model.dtype)
    weights = model.state_dict()
    for name in ("wte.weight", "lm_head.weight"):
        if name in weights:
            old = weights[name]
            new = old.new_empty(rows, old.size(1))
            new[: len(old)] = old
            new[known:vocab_size] = old[:known].mean(dim=0)
            weights[name] = new
    grown.load_state_dict(weights)
    return grown.train(model.training)
