"""Weights on which a small mistake in the arithmetic shows.

A freshly initialised GPT-2 forgives: its attention is flat, its biases are zero, its norms are
one, and its activations so small that every GELU is a straight line. ``hard_model`` has none of
this; ``test_hard_weights.py`` holds it to that and ``tests/parity/test_mutations.py`` shows what
it buys.
"""

import torch
from torch import Tensor

from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2, Block

SCORE_STD = 6.0
"""Standard deviation of attention scores: the best of 50 keys then often takes a whole row."""
OUTLIER = 10.0
"""One channel of the stream stands out by this many deviations, as in every trained GPT-2."""


def deviation(ours: Tensor, reference: Tensor) -> float:
    """The largest difference, in units of the reference's largest magnitude."""
    assert ours.shape == reference.shape
    difference = (ours.float() - reference.float()).abs().max()
    return (difference / reference.abs().max()).item()


def hard_model(config: GPT2Config, *, quiet: bool = False, seed: int = 0) -> GPT2:
    """A model in evaluation mode with seeded weights that a wrong formula gets wrong.

    Args:
        config: Any shape and any switches.
        quiet: Keep the residual stream so small that epsilon matters in every layer norm. Else
            only the embeddings are small, blocks add large numbers to them, and one channel
            sticks out.
        seed: Of all weights.
    """
    model = GPT2(config)
    generator = torch.Generator().manual_seed(seed)
    fill(model, generator, embedding_std=0.01 if quiet else 0.1, block_std=0.01 if quiet else 10.0)
    return model.eval()


@torch.no_grad()
def fill(
    model: GPT2, generator: torch.Generator, *, embedding_std: float, block_std: float
) -> None:
    """Draw every parameter of `model`; blocks add about `block_std` to the stream."""

    def draw(parameter: Tensor, std: float, mean: float = 0.0) -> None:
        parameter.normal_(mean, std, generator=generator)

    def draw_block(block: Block, layer: int) -> None:
        config = model.config
        C = config.n_embd
        attn, mlp = block.attn, block.mlp
        # A norm's output has about unit variance, so a channel of q or k has C * std^2, and a
        # scaled score has the standard deviation C * std^2 * sqrt(D) * scale.
        score = C * config.head_width**0.5 * config.attention_scale(layer)
        draw(attn.c_attn.weight[: 2 * C], (SCORE_STD / score) ** 0.5)
        draw(attn.c_attn.weight[2 * C :], C**-0.5)
        draw(attn.c_attn.bias, 0.3)
        draw(mlp.c_fc.weight, 2.0 * C**-0.5)  # past GELU's bend, where its two forms differ
        draw(mlp.c_fc.bias, 0.5)
        for projection in (attn.c_proj, mlp.c_proj):
            draw(projection.weight, block_std * projection.in_features**-0.5)
            draw(projection.bias, 0.3 * block_std)

    draw(model.wte.weight, embedding_std)
    draw(model.wpe.weight, embedding_std)
    for layer, block in enumerate(model.h):
        draw_block(block, layer)
    model.h[0].mlp.c_proj.bias[model.config.n_embd // 3] = OUTLIER * block_std
    for name, norm in model.named_modules():
        if name.split(".")[-1].startswith("ln_"):
            draw(norm.weight, 0.3, mean=1.0)
            draw(norm.bias, 0.3)
    if model.lm_head is not None:
        draw(model.lm_head.weight, 0.1)
