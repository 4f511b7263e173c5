"""A small vocabulary, a small corpus, and what is in a prepared folder."""

import gzip
import json

import numpy as np
import pytest

from cleangpt2.tokenizer import Tokenizer

WORDS = ["the", "fox", "and", "a", "dog", "ran", "over", "hills,", "été", "naïve", "我们", "said:"]
WORDS += ["“go”", "42", "times!\n\n", "won't", "I'm"]


def story(number: int, words: int = 30) -> str:
    """A text of its own for every number."""
    rng = np.random.default_rng(number)
    return f"{number} " + " ".join(rng.choice(WORDS, size=words))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([story(n) for n in range(50)], 300, ("<|endoftext|>", "<|pad|>"))


@pytest.fixture
def corpus(tmp_path):
    """Three files of 300 documents, one of them packed, and where they are."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = [json.dumps({"id": n, "text": story(n)}) + "\n" for n in range(300)]
    (folder / "a.jsonl").write_text("".join(lines[:150]), encoding="utf-8")
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(lines[150:]).encode(), mtime=0))
    (folder / "c.txt").write_text(story(1000, words=3000), encoding="utf-8")
    return folder


def contents(folder) -> dict[str, bytes]:
    """Every file of a prepared folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def documents(corpus, tokenizer, split="train") -> list[str]:
    """The texts of a split."""
    row = getattr(corpus, split)[:]
    pieces = np.split(row, np.flatnonzero(row == tokenizer.eos_id))
    return [tokenizer.decode(piece[1:]) for piece in pieces[1:-1]]
