"""``cleangpt2 data prepare``: turn a corpus into token shards."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from cleangpt2.cli import terminal
from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.index import SPLITS, Index, read_index
from cleangpt2.errors import InputError

EXAMPLE = """
    cleangpt2 data prepare stories.jsonl.gz books/ --tokenizer gpt2 --out data/stories
    cleangpt2 data prepare hf:roneneldan/TinyStories --tokenizer story --out data/tiny
    cleangpt2 pretrain data/stories --out runs/first
"""
_SMALL = 10_000_000  # bytes; starting processes would take longer
_WARNINGS = 10  # bad lines shown; all are counted, and the first 100 are in index.json


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to read, with whose vocabulary, and where to write."""

    files: tyro.conf.Positional[tuple[str, ...]]
    """Text, .jsonl and .parquet files, packed or not (.gz .bz2 .xz .zst), folders of them, - for
    standard input, or hf:owner/name[:config][/split] for a data set of the hub."""
    out: Path
    """Folder for the shards; the same command with the same folder goes on where it stopped."""
    tokenizer: str
    """Whose vocabulary: a bundled model, a published size, a hub id, or a folder."""
    corpus: Annotated[PrepareConfig, tyro.conf.arg(name="")] = PrepareConfig()
    workers: int | None = None
    """Processes that encode; one for each processor if not given, and one alone for little text."""
    fresh: bool = False
    """Remove what an earlier run left in the folder and start anew."""
    verify: bool = False
    """Compare every byte of the folder with its checksums at the end."""
    config: Path | None = None
    """TOML file with any of these settings; flags win over it."""


def run(options: Options) -> None:
    """Prepare the folder, show how far it is, and sum up."""
    if not options.files:
        raise InputError(
            "no files to prepare: give text, .jsonl or .parquet files, "
            "as in `cleangpt2 data prepare stories.jsonl --tokenizer gpt2 --out data/stories`"
        )
    if options.workers is not None and options.workers < 1:
        raise InputError(f"workers is {options.workers}; it must be at least 1")

    from tqdm import tqdm

    from cleangpt2.data.corpus import Corpus
    from cleangpt2.data.prepare import prepare
    from cleangpt2.data.sources import find_sources
    from cleangpt2.data.workers import usable_processors
    from cleangpt2.hub import locate
    from cleangpt2.model.convert.tokenizers import tokenizer_of

    sources = find_sources(options.files, options.corpus.stdin)
    tokenizer = tokenizer_of(locate(options.tokenizer))
    known = all(source.path is not None for source in sources)
    total = sum(source.size for source in sources) if known else None
    is_small = total is not None and total < _SMALL
    was_done = not options.fresh and read_index(options.out) is not None
    started = time.perf_counter()
    try:
        with tqdm(total=total, unit="B", unit_scale=True, disable=None, leave=False) as bar:
            index = prepare(
                options.files,
                tokenizer,
                options.out,
                _unescaped(options.corpus),
                tokenizer_name=options.tokenizer,
                workers=options.workers or (1 if is_small else usable_processors()),
                fresh=options.fresh,
                progress=bar.update,
                warn=_Warnings(),
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command goes on where it stopped") from None
    seconds = time.perf_counter() - started
    if was_done:
        print(f"{options.out} is finished; nothing was left to do")
    _sum_up(index)
    if options.verify:
        Corpus(options.out).verify()
        print("all checksums are right")
    done = "" if was_done else f" after {seconds:.1f} s"
    print(terminal.paint(f"in {options.out}{done}", "dim"))


class _Warnings:
    """Shows the first bad lines, then says that there are more."""

    def __init__(self) -> None:
        self.shown = 0

    def __call__(self, line: str) -> None:
        self.shown += 1
        if self.shown <= _WARNINGS:
            terminal.warn(f"{line}; left out")
        if self.shown == _WARNINGS + 1:
            terminal.warn("more lines are left out; index.json names the first 100")


def _sum_up(index: Index) -> None:
    """What the folder holds, and what was left out."""
    for split in SPLITS:
        shards = len(index.splits[split])
        print(
            f"{split:<11}{index.tokens(split):>15,} tokens  {index.documents(split):>11,} "
            f"documents  {shards:>5,} shard{'' if shards == 1 else 's'}"
        )
    names = {"bad": "bad line", "empty": "empty document", "duplicates": "duplicate"}
    counts = {name: index.total(what) for what, name in names.items()}
    if out := [f"{n:,} {name}{'' if n == 1 else 's'}" for name, n in counts.items() if n]:
        print(f"left out: {', '.join(out)}")
    if index.settings["validation"] and not index.documents("validation"):
        terminal.warn(
            f"no document fell into the validation split of {index.settings['validation']:g}: "
            "raise --validation or give more documents"
        )


def _unescaped(config: PrepareConfig) -> PrepareConfig:
    r"""The settings with ``\n`` and ``\t`` of the command line made real."""
    if config.separator is None:
        return config
    return replace(config, separator=config.separator.replace("\\n", "\n").replace("\\t", "\t"))
