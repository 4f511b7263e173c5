"""What the two ways past the context cost, and what they lose, for the bundled "story" model.

    python benchmarks/window.py --data ../shared/data

Bits per byte are those of real text behind a full context, at every 16th token, each predicted
from what "slide" or "slide-fast" lets the model see. The rates are those of the sampler, writing
behind a full context for as long as it takes "slide-fast" to forget once.
"""

import argparse
import time
from pathlib import Path

import torch
from _turns import machine

from cleangpt2.metrics.likelihood import bits_per_byte
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.pretrained import load
from cleangpt2.sampler.config import PastContext, SamplingConfig
from cleangpt2.sampler.context import Context
from cleangpt2.sampler.decode import Decoding
from cleangpt2.texts import read_all
from cleangpt2.tokenizer import Tokenizer

FILES = {
    "short stories, one after the other": "tinystories_valid.jsonl.gz",
    "long fairy tales": "fairytaleqa_stories.jsonl.gz",
}
MODES: tuple[PastContext, ...] = ("slide", "slide-fast")


def main() -> None:
    """Read the options and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="story")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="a data folder")
    parser.add_argument("--rows", type=int, default=8, help="passages of each text")
    parser.add_argument("--tokens", type=int, default=256, help="read behind the context")
    parser.add_argument("--every", type=int, default=16, help="measure one token of so many")
    args = parser.parse_args()
    print(machine("torch"))
    model, tokenizer = load(args.model, device="cpu")
    for name, file in FILES.items():
        path = args.data / "pretrain" / file
        if not path.is_file():
            print(f"{name}: skipped, there is no {path} (give --data)")
            continue
        rows = passages(tokenizer, path, args.rows, model.config.n_positions + args.tokens)
        for mode in MODES:
            bits = windowed_bits(model, tokenizer, rows, mode, args.every)
            print(f"{name}, {mode}: {bits:.3f} bits per byte", flush=True)
    rates(model)


def passages(tokenizer: Tokenizer, file: Path, count: int, length: int) -> list[list[int]]:
    """So many passages of this many tokens, evenly spread over the texts."""
    documents = tokenizer.encode_batch(read_all([file]))
    ids = [id for document in documents for id in (tokenizer.eos_id, *document)]
    stride = (len(ids) - length) // max(count - 1, 1)
    return [ids[row * stride : row * stride + length] for row in range(count)]


@torch.inference_mode()
def windowed_bits(
    model: GPT2, tokenizer: Tokenizer, rows: list[list[int]], mode: PastContext, every: int
) -> float:
    """Bits per byte of what stands behind the first full context of each row."""
    context, n = Context(model, past_context=mode), model.config.n_positions
    lengths = range(n, len(rows[0]))
    measured, nats = lengths[every - 1 :: every], 0.0
    # A cache has to see every token on the way; without one the way does not matter.
    for length in lengths if mode == "slide-fast" else measured:
        logprobs = context.logits([row[:length] for row in rows]).log_softmax(dim=-1)
        if length in measured:
            nats -= sum(float(logprobs[i, row[length]]) for i, row in enumerate(rows))
    per_token = nats / (len(measured) * len(rows))
    n_bytes = sum(len(tokenizer.decode(row[n:]).encode()) for row in rows)
    return bits_per_byte(per_token * len(lengths) * len(rows), n_bytes)


def rates(model: GPT2) -> None:
    """Tokens a second of one row, once its prompt is read: inside the context, and behind it."""
    n = model.config.n_positions

    def write(prompt: int, mode: PastContext, new: int) -> float:
        config = SamplingConfig(max_new_tokens=new + 1, seed=1, past_context=mode)
        decoding = Decoding(model, [[5] * prompt], config)
        decoding.step()
        began = time.perf_counter()
        while decoding.active:
            decoding.step()
        return new / (time.perf_counter() - began)

    cases: list[tuple[str, int, PastContext, int]] = [
        ("inside the context", n // 2 - 1, "stop", n - n // 2),
        ("behind it", n, "slide-fast", n - n // 2),
        ("behind it", n, "slide", 16),
    ]
    for name, prompt, mode, new in cases:
        rate = max(write(prompt, mode, new) for _ in range(3))
        print(f"{name}, {mode}: {rate:.0f} tokens a second", flush=True)


if __name__ == "__main__":
    main()
