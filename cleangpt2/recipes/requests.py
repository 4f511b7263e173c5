"""Requests for stories, and the stories: what ``cleangpt2 sft`` learns when it is given no files.

    python -m cleangpt2.recipes.requests --out requests.jsonl.gz

The bundled model "story" writes them all; what a request asks for is found in its story by code:
the name of who it is about, and a thing that it mentions again. So no text of anybody else's is in
them.
"""

import argparse
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cleangpt2
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.recipes.options import in_one_line
from cleangpt2.tokenizer import Tokenizer

STORIES, AT_ONCE = 600, 60
LONGEST = 200
"""Tokens of a story."""

BEGINNING = "Once upon a time"
SETTINGS = {"temperature": 0.8, "top_k": 50, "max_new_tokens": LONGEST, "seed": 5}

_NAME = re.compile(r"\bnamed ([A-Z][a-z]+)\b")
_THING = re.compile(r"\ban? ((?:[a-z]+ )?)([a-z]{3,})(?=[.,]| with | in | on | to )")
# What stands behind "a" and is no thing that one could ask for.
_NO_THINGS = {
    "lot", "bit", "while", "day", "time", "little", "big", "great", "good", "boy", "girl", "man",
    "woman", "few", "moment", "minute", "hug", "thing",
}  # fmt: skip


def main() -> None:
    """Let the model write, and put the rows into a file."""
    parser = argparse.ArgumentParser(
        prog="python -m cleangpt2.recipes.requests",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("requests.jsonl.gz"))
    parser.add_argument("--stories", type=int, default=STORIES, help="how many to write")
    options = parser.parse_args()
    model, tokenizer = cleangpt2.load("story")
    rows = []
    for story in write(model, tokenizer, options.stories):
        if (asked := request(story)) is not None:
            rows.append(json.dumps({"instruction": asked, "output": story}))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    # Without a name and a time in it, so that equal rows are equal files.
    with open(options.out, "wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.write(("\n".join(rows) + "\n").encode())
    print(f"{len(rows):,} rows of {options.stories:,} stories in {options.out}")


def write(model: GPT2, tokenizer: Tokenizer, count: int) -> Iterator[str]:
    """Stories that the model has ended by itself, each once."""
    told: set[str] = set()
    for first in range(0, count, AT_ONCE):
        samples = cleangpt2.generate(
            model, tokenizer, BEGINNING, num_samples=min(AT_ONCE, count - first),
            **{**SETTINGS, "seed": SETTINGS["seed"] + first},
        )  # fmt: skip
        for sample in samples if isinstance(samples, list) else [samples]:
            story = " ".join((BEGINNING + sample.text).split())
            if sample.finish_reason == "stop" and story not in told:
                told.add(story)
                yield story


def request(story: str) -> str | None:
    """What somebody may have asked for who got this story; ``None`` if nothing can be told.

    >>> request("There was a girl named Lily. She had a red ball. She lost the ball.")
    'Write a story about Lily and a ball.'
    >>> request("It was a day like any other.")
    """
    named, thing = _NAME.search(story), _thing(story)
    if named and thing:
        return f"Write a story about {named[1]} and {thing}."
    if named:
        return f"Write a story about {named[1]}."
    return f"Write a story with {thing}." if thing else None


def _thing(story: str) -> str | None:
    """The first thing that comes again, with its article."""
    words = Counter(re.findall(r"[a-z]+", story))
    for _, noun in _THING.findall(story):
        if words[noun] > 1 and noun not in _NO_THINGS:
            return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
    return None


if __name__ == "__main__":
    in_one_line(main)
