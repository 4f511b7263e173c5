"""``cleangpt2 tokenizer train``: learn a vocabulary from text files."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from cleangpt2.cli import terminal
from cleangpt2.cli.tokenize import describe
from cleangpt2.errors import InputError, OutputError
from cleangpt2.files import check_writable

EXAMPLE = """
    cleangpt2 tokenizer train stories.jsonl.gz --vocab-size 4096 --out my-vocabulary
    cleangpt2 tokenize "Once upon a time" --model my-vocabulary
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """From which texts, how many tokens, and where to put them."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Text files, or .jsonl with a "text" in each line; .gz is unpacked."""
    out: Path
    """Folder for merges.txt, vocab.json and tokenizer_config.json."""
    vocab_size: int = 4096
    """How many ids: 256 bytes, the merges, and the special tokens."""
    special_tokens: tuple[str, ...] = ("<|endoftext|>",)
    """Tokens that no text contains; they get the last ids."""
    overwrite: bool = False
    """Replace the vocabulary in the folder; models that were trained with it need it, though."""


def run(options: Options) -> None:
    """Read the files, learn the merges, save them and sum up."""
    from tqdm import tqdm

    from cleangpt2.texts import read_all
    from cleangpt2.tokenizer import Tokenizer

    if not options.files:
        raise InputError(
            "no files to learn from: give text or .jsonl files, "
            "as in `cleangpt2 tokenizer train stories.txt --out my-vocabulary`"
        )
    if (options.out / "merges.txt").exists() and not options.overwrite:
        raise OutputError(
            f"{options.out} holds a vocabulary; choose another folder or add --overwrite"
        )
    check_writable(options.out)
    started = time.perf_counter()
    texts = read_all(options.files)
    n_bytes = sum(len(text.encode()) for text in texts)
    print(f"{len(texts):,} texts, {n_bytes / 1e6:.1f} MB", file=sys.stderr)

    n_merges = max(0, options.vocab_size - 256 - len(options.special_tokens))
    with tqdm(total=n_merges, unit="merge", disable=None, leave=False) as bar:
        tokenizer = Tokenizer.train(
            texts, options.vocab_size, options.special_tokens, progress=lambda _: bar.update()
        )
    tokenizer.save(options.out)
    seconds = time.perf_counter() - started
    n_tokens = sum(map(len, tokenizer.encode_batch(texts)))
    print(describe(tokenizer))
    print(f"{n_bytes / n_tokens:.2f} bytes per token on these texts")
    print(terminal.paint(f"saved in {options.out} after {seconds:.1f} s", "dim"))
