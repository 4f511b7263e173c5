"""How fast `data prepare` is, beside a plain script of tiktoken on several processes.

    python benchmarks/data.py --data ../shared/data            how fast it is
    python benchmarks/data.py --data ../shared/data --memory   what memory it takes instead

Both read the same file and write the same number of tokens, and take turns; every turn starts its
processes anew, so that nobody meets a text twice. Read the ratios: a busy machine slows both.
Memory is measured on inputs of growing size, which are made on the spot: reviews with letters at
random between them, so that words come that never came before, however long it is.
"""

import argparse
import gzip
import json
import multiprocessing
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median

import numpy as np
import tiktoken
from _turns import in_turn, machine, ratio

from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.prepare import prepare
from cleangpt2.data.workers import usable_processors
from cleangpt2.tokenizer import Tokenizer

PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
SEPARATOR = "\n<|endoftext|>\n"
LETTERS = bytes((b"abcdefghijklmnopqrstuvwxyz" * 9)[:224] + b" " * 32)  # of any byte
NEW = 0.05
"""Share of random letters in the inputs for memory; in real text fewer words are new."""


def main() -> None:
    """Read the options, make the inputs, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="a data folder")
    parser.add_argument("--mb", type=float, default=100, help="size of the timed inputs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=usable_processors())
    parser.add_argument(
        "--memory",
        type=float,
        nargs="*",
        metavar="MB",
        help="sizes; 500 1000 2000 if none is given",
    )
    args = parser.parse_args()
    print(machine("tiktoken", "gigatoken"))
    with tempfile.TemporaryDirectory() as folder:
        if args.memory is not None:
            memory(args.memory or [500, 1000, 2000], args, Path(folder))
            return
        for kind in ("jsonl", "txt"):
            speed(kind, args, Path(folder))


# ---- speed --------------------------------------------------------------------------------


def speed(kind: str, args: argparse.Namespace, folder: Path) -> None:
    """Ours and theirs on one file, in turn."""
    path = folder / f"reviews.{kind}"
    size = write_input(path, args.data, args.mb)
    tokenizer = Tokenizer.from_pretrained(args.data / "gpt2")
    config = PrepareConfig(validation=0, separator=None if kind == "jsonl" else SEPARATOR)
    counts: dict[str, int] = {}

    def ours() -> None:
        index = prepare(
            [str(path)], tokenizer, folder / "ours", config, workers=args.workers, fresh=True
        )
        counts["ours"] = index.tokens("train")

    def theirs() -> None:
        counts["tiktoken"] = plain_script(path, folder / "theirs.bin", args.data, args.workers)

    times = in_turn({"ours": ours, "tiktoken": theirs}, args.rounds)
    print(f"\n{path.name}, {size / 1e6:.0f} MB, {args.workers} processes, reading and writing")
    for name, seconds in times.items():
        best, middle, worst = min(seconds), median(seconds), max(seconds)
        print(
            f"  {name:<10}{size / 1e6 / middle:>8.1f} MB/s   median {middle:.2f} s "
            f"({best:.2f} to {worst:.2f})   {counts[name]:,} tokens"
        )
    print(f"  ours is {ratio(times['ours'], times['tiktoken']):.2f} times as fast")


_tiktoken: list[tiktoken.Encoding] = []


def plain_script(path: Path, out: Path, data: Path, workers: int) -> int:
    """What one would write in twenty lines: a pool that encodes, one file that takes the ids."""
    tokens = 0
    with (
        multiprocessing.Pool(workers, _begin, (data,)) as pool,
        open(path, encoding="utf-8") as file,
        open(out, "wb") as written,
    ):
        documents = file if path.suffix == ".jsonl" else file.read().split(SEPARATOR)
        encode = _encode_line if path.suffix == ".jsonl" else _encode_text
        for ids in pool.imap(encode, documents, chunksize=64):
            written.write(ids.tobytes())
            tokens += len(ids)
    return tokens


def _begin(data: Path) -> None:
    vocabulary = Tokenizer.from_pretrained(data / "gpt2").vocabulary
    encoding = tiktoken.Encoding(
        name="raw",
        pat_str=PATTERN,
        mergeable_ranks=dict(vocabulary.ids),
        special_tokens=dict(vocabulary.special),
    )
    _tiktoken.append(encoding)


def _encode_line(line: str) -> np.ndarray:
    return _encode_text(json.loads(line)["text"])


def _encode_text(text: str) -> np.ndarray:
    return np.array([50256, *_tiktoken[0].encode_ordinary(text)], np.uint16)


# ---- memory -------------------------------------------------------------------------------


def memory(sizes: Sequence[float], args: argparse.Namespace, folder: Path) -> None:
    """The most memory that the processes of a run hold, by the size of the input."""
    print("\nmemory at its highest: of all processes together, and of the largest one")
    for kind, megabytes in ((kind, mb) for kind in ("jsonl", "txt") for mb in sizes):
        path = folder / f"large.{kind}"
        size = write_input(path, args.data, megabytes, new=NEW)
        shutil.rmtree(folder / "large", ignore_errors=True)
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_prepare_large, args=(path, folder / "large", args))
        started = time.perf_counter()
        process.start()
        samples = _watch(process.pid or 0, process.is_alive)
        process.join()
        seconds = time.perf_counter() - started
        if not samples:
            print("  not measured: only Linux tells")
            return
        together, largest = max(map(sum, samples)), max(map(max, samples))
        print(
            f"  {kind:<6}{size / 1e6:>8.0f} MB{together / 1e6:>8.0f} MB together"
            f"{largest / 1e6:>8.0f} MB the largest   {seconds:.1f} s",
            flush=True,
        )


def _prepare_large(path: Path, out: Path, args: argparse.Namespace) -> None:
    tokenizer = Tokenizer.from_pretrained(args.data / "gpt2")
    # The text is one document, which no memory should have to hold.
    prepare([str(path)], tokenizer, out, workers=args.workers)


def _watch(pid: int, is_alive: Callable[[], bool]) -> list[list[int]]:
    """The resident bytes of a process and each of its children, every tenth of a second."""
    samples = []
    while is_alive():
        samples.append([_resident(member) for member in _family(pid)])
        time.sleep(0.1)
    return [sample for sample in samples if any(sample)]


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in _family(int(child)))]


def _resident(pid: int) -> int:
    """Bytes that only this process holds; mapped files of all are left out."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * 4096


# ---- inputs -------------------------------------------------------------------------------


def write_input(path: Path, data: Path, megabytes: float, new: float = 0.0) -> int:
    """Reviews, over and over with a number in front, until the file is large enough.

    Args:
        new: Bytes of random letters after each review, as a share of it.
    """
    size, rng = 0, random.Random(0)
    with open(path, "wb") as file:
        for number, text in enumerate(reviews(data)):
            if size >= megabytes * 1e6:
                break
            words = rng.randbytes(int(new * len(text))).translate(LETTERS).decode()
            numbered = f"{number}: {text}{words}"
            line = json.dumps({"id": number, "text": numbered}, ensure_ascii=False) + "\n"
            content = line if path.suffix == ".jsonl" else numbered + SEPARATOR
            size += file.write(content.encode())
    return size


def reviews(data: Path) -> Iterator[str]:
    """Film reviews without an end."""
    for name in cycle(("imdb_unsup", "imdb_train", "imdb_test")):
        with gzip.open(data / "sentiment" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)["text"]


if __name__ == "__main__":
    main()
