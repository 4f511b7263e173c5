"""Bits per byte of a model on held-out documents."""

import torch

from cleangpt2.metrics.likelihood import bits_per_byte
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.logprobs import linear_cross_entropy
from cleangpt2.tokenizer import Tokenizer


@torch.inference_mode()
def held_out_bits_per_byte(
    model: GPT2, tokenizer: Tokenizer, texts: list[str], *, B: int = 16
) -> float:
    """Bits the model needs for each UTF-8 byte of `texts`.

    Every document stands alone: it follows an end-of-text token, and the end-of-text token
    after it is predicted and counted too, as a compressor would have to send it. What lies past
    the context is predicted from a fresh window, without its past.
    """
    T = model.config.n_positions
    eos = tokenizer.eos_id
    windows: list[list[int]] = []
    for ids in tokenizer.encode_batch(texts):
        row = [eos, *ids, eos]
        windows += [row[start : start + T + 1] for start in range(0, len(row) - 1, T)]
    windows.sort(key=len)  # rows of like length share a batch
    nats = 0.0
    with model.evaluating():
        for start in range(0, len(windows), B):
            rows = windows[start : start + B]
            longest = max(map(len, rows))
            # -100 is what the loss skips; a pad on the right is never seen by a real token.
            padded = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
            inputs, targets = padded[:, :-1].clamp(min=0), padded[:, 1:].to(model.device)
            hidden = model.hidden(model.check(inputs)).flatten(0, 1)
            loss = linear_cross_entropy(
                hidden, model.output_weight, targets.flatten(), reduction="sum"
            )
            nats += float(loss)
    return bits_per_byte(nats, sum(len(text.encode()) for text in texts))
