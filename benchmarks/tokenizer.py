"""How fast the tokenizer is, beside raw tiktoken and the trainers of others.

    python benchmarks/tokenizer.py --data ../shared/data

Every call sees text that it has not seen before, since a word cache would make a repeated text
look ten times faster. Ours and theirs take turns on the same texts, and who goes first changes,
so that a busy machine slows both: read the ratios. A figure is the median over the rounds.
"""

import argparse
import gzip
import importlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median

import tiktoken
from _turns import installed, load, machine

from cleangpt2.tokenizer import Tokenizer, bpe
from cleangpt2.tokenizer.learning import fast_module

# What tiktoken itself uses for GPT-2, which it would download with the vocabulary.
TIKTOKEN_PATTERN = (
    r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
)


def main() -> None:
    """Read the options, run each measurement and print its lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="a data folder")
    parser.add_argument("--vocabulary", help="name or folder; the data folder's gpt2 by default")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--train-mb", type=float, default=20, help="size of the training corpus")
    parser.add_argument("--skip-training", action="store_true")
    args = parser.parse_args()

    tok = Tokenizer.from_pretrained(args.vocabulary or args.data / "gpt2")
    raw = tiktoken.Encoding(
        name="raw",
        pat_str=TIKTOKEN_PATTERN,
        mergeable_ranks=dict(tok.vocabulary.ids),
        special_tokens=tok.special_tokens,
    )
    print(machine("tiktoken", "gigatoken"))

    texts = reviews(args.data)
    encode(tok, raw, texts, args.rounds)
    encode_batch(tok, raw, texts, args.rounds)
    decode(tok, raw, texts, args.rounds)
    equal_letters(tok)
    if not args.skip_training:
        train(args.data, args.train_mb)


# ---- encoding and decoding ----------------------------------------------------------------


def encode(tok: Tokenizer, raw: tiktoken.Encoding, texts: Iterator[str], rounds: int) -> None:
    """One text of 0.5 MB a call, then one review a call."""
    ways = {
        "ours": lambda chunk: [tok.encode(text) for text in chunk],
        "tiktoken": lambda chunk: [raw.encode_ordinary(text) for text in chunk],
    }
    duel("encode, texts of 0.5 MB", ways, [["\n".join(take(texts, 0.5))] for _ in range(rounds)])
    duel("encode, one review a call", ways, [take(texts, 0.5) for _ in range(rounds)])


def encode_batch(tok: Tokenizer, raw: tiktoken.Encoding, texts: Iterator[str], rounds: int) -> None:
    """Many texts a call, once long ones and once lines; the first call is listed apart."""
    ways = {
        "ours": tok.encode_batch,
        "tiktoken, loop": lambda chunk: [raw.encode_ordinary(text) for text in chunk],
        "tiktoken, batch": lambda chunk: raw.encode_ordinary_batch(
            chunk, num_threads=os.cpu_count() or 1
        ),
    }
    duel("encode_batch, the first call, 5 MB", ways, [take(texts, 5)])
    # What follows is a tokenizer in use: ours has met the common words, the texts are still new.
    tok.encode_batch(take(texts, 20))
    duel("encode_batch, reviews, 2 MB a call", ways, [take(texts, 2) for _ in range(rounds)])
    lines = [
        [line for text in take(texts, 2) for line in text.replace(". ", ".\n").split("\n")]
        for _ in range(rounds)
    ]
    duel("encode_batch, sentences, 2 MB a call", ways, lines)


def decode(tok: Tokenizer, raw: tiktoken.Encoding, texts: Iterator[str], rounds: int) -> None:
    """Ids of 0.5 MB of text a call."""
    ids = {text: tok.encode(text) for text in ("\n".join(take(texts, 0.5)) for _ in range(rounds))}
    ways = {
        "ours": lambda chunk: tok.decode(ids[chunk[0]]),
        "tiktoken": lambda chunk: raw.decode(ids[chunk[0]]),
    }
    duel("decode, texts of 0.5 MB", ways, [[text] for text in ids])


def equal_letters(tok: Tokenizer) -> None:
    """Runs of one letter: the time per letter must not grow with the run."""
    ways: dict[str, Callable[[str], object]] = {
        "encode": tok.encode,
        "encode_batch": lambda text: tok.encode_batch([text]),
        "readable": bpe.BytePairEncoder(tok.vocabulary.merges).encode,
    }
    print("\nequal letters: ns per letter")
    lengths = (25_000, 50_000, 100_000, 200_000, 400_000)
    print(f"  {'letters':<16}" + "".join(f"{n:>10,}" for n in lengths))
    for name, way in ways.items():
        cells = []
        for n in lengths:
            letters = "abcdefghij"[lengths.index(n) :][:5]
            cells.append(median(seconds(way, letter * n) for letter in letters) / n * 1e9)
        print(f"  {name:<16}" + "".join(f"{cell:>10.0f}" for cell in cells))


# ---- training -----------------------------------------------------------------------------


def train(data: Path, megabytes: float) -> None:
    """The readable trainer alone, then what the extra makes of it, then rustbpe."""
    books = texts_of(data / "pretrain" / "chilit_books.jsonl.gz")
    corpus = take(books, megabytes)
    size = sum(len(text.encode()) for text in corpus) / 1e6
    n_merges = 8192 - 256
    print(f"\ntraining, {size:.1f} MB of books to 8,192 tokens ({load()})")

    wall, cpu = time.perf_counter(), time.process_time()
    merges = bpe.train(corpus, n_merges)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"  {'readable':<16}{wall:>8.2f} s   {cpu:.2f} s of CPU")
    if (fast := fast_module(sum(map(len, corpus)))) is not None:
        started = time.perf_counter()
        same = fast.train(corpus, n_merges) == merges
        print(f"  {'gigatoken':<16}{time.perf_counter() - started:>8.2f} s   same merges: {same}")
    if installed("rustbpe"):
        started = time.perf_counter()
        rust = getattr(importlib.import_module("rustbpe"), "Tokenizer")()  # noqa: B009
        rust.train_from_iterator(iter(corpus), 8192, pattern=bpe.SPLIT_PATTERN)
        spent = time.perf_counter() - started
        ranks = sorted(rust.get_mergeable_ranks(), key=lambda pair: pair[1])[256:]
        same = [bytes(token) for token, _ in ranks] == [left + right for left, right in merges]
        print(f"  {'rustbpe':<16}{spent:>8.2f} s   same tokens: {same}")


# ---- measuring ----------------------------------------------------------------------------


def duel(
    title: str, ways: Mapping[str, Callable[[list[str]], object]], chunks: Sequence[list[str]]
) -> None:
    """Time every way on every chunk, taking turns; print MB/s and how many times faster ours is.

    CPU time counts all threads; on a busy machine its ratio is steadier than that of wall time.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn, chunk in enumerate(chunks):
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            wall, cpu = time.perf_counter(), time.process_time()
            ways[name](chunk)
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    megabytes = [sum(len(text.encode()) for text in chunk) / 1e6 for chunk in chunks]
    print(f"\n{title}")
    for name in ways:
        speed = median(mb / wall for mb, (wall, _) in zip(megabytes, times[name], strict=True))
        pairs = list(zip(times["ours"], times[name], strict=True))
        ratios = [median(theirs[k] / ours[k] for ours, theirs in pairs) for k in (0, 1)]
        told = f"   ours: {ratios[0]:.2f} x, by CPU time {ratios[1]:.2f} x"
        print(f"  {name:<16}{speed:>8.1f} MB/s{'' if name == 'ours' else told}")


def seconds(way: Callable, argument: object) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    way(argument)
    return time.perf_counter() - started


def take(texts: Iterator[str], megabytes: float) -> list[str]:
    """The next texts of an iterator, up to a size."""
    taken, size = [], 0
    while size < megabytes * 1e6:
        batch = list(islice(texts, 1))
        if not batch:
            raise SystemExit("not enough text: take fewer rounds or another data folder")
        taken += batch
        size += len(batch[0].encode())
    return taken


def reviews(data: Path) -> Iterator[str]:
    """Film reviews, none of them twice."""
    for name in ("imdb_train", "imdb_test", "imdb_unsup"):
        yield from texts_of(data / "sentiment" / f"{name}.jsonl.gz")


def texts_of(path: Path) -> Iterator[str]:
    """The longest text column of a .jsonl.gz file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield max((v for v in json.loads(line).values() if isinstance(v, str)), key=len)


if __name__ == "__main__":
    main()
