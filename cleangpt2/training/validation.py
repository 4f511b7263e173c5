"""Bits per byte of a model on held-out documents."""

import torch

from cleangpt2.metrics.likelihood import bits_per_byte
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.logprobs import linear_cross_entropy
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.training.runtime import ALONE, Runtime


@torch.inference_mode()
def held_out_bits_per_byte(
    model: GPT2,
    tokenizer: Tokenizer,
    texts: list[str],
    *,
    B: int = 16,
    runtime: Runtime = ALONE,
) -> float:
    """Bits the model needs for each UTF-8 byte of `texts`.

    Every document stands alone: it follows an end-of-text token, and the end-of-text token
    after it is predicted and counted too, as a compressor would have to send it. What lies past
    the context is predicted from a fresh window, without its past.

    Args:
        B: Windows that are computed at once.
        runtime: Its processes share the work, and all get the result.
    """
    windows = _windows(tokenizer, texts, model.config.n_positions)
    nats = 0.0
    with model.evaluating():
        # Of a sharded model all processes compute a batch at the same time: one that finds none
        # left takes the last one along and counts nothing of it.
        for start in range(0, len(windows), B * runtime.world_size):
            mine = start + B * runtime.rank
            if mine < len(windows):
                nats += _nats(model, windows[mine : mine + B])
            else:
                _nats(model, windows[-1:])
    return bits_per_byte(runtime.sum(nats), sum(len(text.encode()) for text in texts))


def _windows(tokenizer: Tokenizer, texts: list[str], T: int) -> list[list[int]]:
    """At most T + 1 ids each, whose first one is given; by length, so that few pads are needed."""
    eos = tokenizer.eos_id
    windows: list[list[int]] = []
    for ids in tokenizer.encode_batch(texts):
        row = [eos, *ids, eos]
        windows += [row[start : start + T + 1] for start in range(0, len(row) - 1, T)]
    return sorted(windows, key=len)


def _nats(model: GPT2, rows: list[list[int]]) -> float:
    """What the model needs for these windows."""
    longest = max(map(len, rows))
    # -100 is what the loss skips; a pad on the right is never seen by a real token.
    padded = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
    inputs, targets = padded[:, :-1].clamp(min=0), padded[:, 1:].to(model.device)
    hidden = model.hidden(model.check(inputs)).flatten(0, 1)
    return float(
        linear_cross_entropy(hidden, model.output_weight, targets.flatten(), reduction="sum")
    )
