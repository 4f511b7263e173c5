"""Models whose answer is known beforehand, and the sampling loop that needs no cleverness.

The sampler caches, batches, pads and streams; ``finished_loop`` does none of it and is what
the sampler is compared with.
"""

import numpy as np
import torch

from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sampler.noise import generator
from cleangpt2.tokenizer import Tokenizer

CLOSE = 1e-4
"""Two candidates nearer than this may change places by float noise."""

SENTENCES = [
    "Once upon a time there was a little girl who had a dog.",
    "The dog was happy and the girl was happy, and the sun was out all day.",
    "If computers were one day to have their own ideas, what would they say?",
]


def random_model(
    vocab_size: int = 61, n_positions: int = 48, dtype: torch.dtype = torch.float32, seed: int = 3
) -> GPT2:
    """Attention that is far from even, and a distribution of some 2 nats that the past changes."""
    config = GPT2Config(
        vocab_size=vocab_size, n_positions=n_positions, n_embd=32, n_layer=2, n_head=4,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = GPT2(config)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Small additions to large embeddings keep one token from taking over the text.
            scale = 1.0 if name.startswith(("wte", "wpe")) else 0.3
            scale = 0.1 if name.endswith(("bias", "c_proj.weight")) else scale
            parameter.normal_(1.0 if "ln_" in name else 0.0, scale, generator=source)
    return model.to(dtype).eval()


def successor_model(vocab_size: int = 20, n_positions: int = 48) -> GPT2:
    """Always says "previous token + 1", and 0 after the last."""
    config = GPT2Config(
        vocab_size=vocab_size, n_positions=n_positions, n_embd=vocab_size, n_layer=1, n_head=1,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = GPT2(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(
                1.0 if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")) else 0.0
            )
        model.wte.weight.copy_(torch.eye(vocab_size))
        model.output_weight.copy_(10 * torch.eye(vocab_size).roll(1, dims=0))
    return model.eval()


def constant_model(logits: list[float], n_positions: int = 48) -> GPT2:
    """Gives these logits after every token."""
    config = GPT2Config(
        vocab_size=len(logits), n_positions=n_positions, n_embd=1, n_layer=1, n_head=1,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = GPT2(config)
    with torch.no_grad():
        model.ln_f.bias.fill_(1.0)  # a layer norm over one channel leaves its bias alone
        model.output_weight.copy_(torch.tensor(logits)[:, None])
    return model.eval()


def small_tokenizer(vocab_size: int = 300) -> Tokenizer:
    """A tokenizer that knows a few words."""
    return Tokenizer.train(SENTENCES, vocab_size)


def probabilities(logits: np.ndarray, config: SamplingConfig) -> np.ndarray:
    """Temperature, top-k and top-p on the logits (V,) of one token, by their definitions."""
    scaled = (logits.astype(np.float64) - logits.max()) / config.temperature
    if config.top_k is not None and config.top_k < len(scaled):
        scaled[scaled < np.sort(scaled)[-config.top_k]] = -np.inf
    p = np.exp(scaled) / np.exp(scaled).sum()
    if config.top_p is not None and config.top_p < 1:
        reached = 0.0
        for id in np.argsort(-p, kind="stable"):
            p[id], reached = (p[id], reached + p[id]) if reached < config.top_p else (0.0, reached)
        p /= p.sum()
    return p


@torch.no_grad()
def finished_loop(
    model: GPT2, prompt: list[int], config: SamplingConfig, sample: int = 0, stop_ids: tuple = ()
) -> tuple[list[int], list[float]]:
    """The loop that the seed notebook never finished: the whole text read anew for each token.

    Returns:
        The new ids, and for each how far the runner-up was from taking its place: the gap in
        logits relative to the largest if greedy, else in probability.
    """
    context = model.config.n_positions
    end = len(prompt) + config.max_new_tokens
    end = min(end, config.max_length or end)
    end = min(end, context) if config.past_context == "stop" else end
    noise = generator(config.seed or 0, prompt, sample)
    x = torch.tensor([prompt])
    margins: list[float] = []
    while x.size(1) < end:
        logits = model(x[:, -context:])[0, -1].double().numpy()
        u = noise.random()
        if config.temperature == 0:
            second, first = np.sort(logits)[-2:]
            id, margin = int(logits.argmax()), (first - second) / np.abs(logits).max()
        else:
            edges = probabilities(logits, config).cumsum()
            id, margin = int((edges <= u).sum()), float(np.abs(edges[:-1] - u).min())
        x = torch.cat([x, torch.tensor([[id]])], dim=1)
        margins.append(float(margin))
        if id in stop_ids:
            break
    return x[0, len(prompt) :].tolist(), margins


def close_calls(ours: list[int], theirs: list[int], margins: list[float]) -> int:
    """0 where both are equal, 1 where they part at a near tie; any other difference fails."""
    if ours == theirs:
        return 0
    pairs = zip(ours, theirs, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
    assert at < len(margins) and margins[at] < CLOSE, f"{ours} is not {theirs}, from step {at}"
    return 1
