"""Settings that decide what a prepared folder holds; no torch, so that ``--help`` is quick."""

import math
from dataclasses import dataclass
from typing import Literal

from cleangpt2.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """How files become documents, and documents become shards."""

    key: str | None = None
    """Column of the text in JSON lines, Parquet and hub data; found where there is no doubt."""
    separator: str | None = None
    r"""What stands between the documents of a text file (\n is a line break); without it a text
    file is one document. Line breaks beside a separator such as <|endoftext|> go with it."""
    keep_separator: bool = False
    """Leave the separator at the end of its document."""
    stdin: Literal["text", "jsonl"] = "text"
    """What is piped in where a file is called -."""
    validation: float = 0.005
    """Share of the documents that is held out, chosen by a hash of the document alone."""
    dedupe: bool = False
    """Leave out documents that came before, byte for byte (120 bytes of memory a document)."""
    strict: bool = False
    """Stop at a line that cannot be read, instead of naming it and going on."""
    shard_tokens: int = 100_000_000
    """Tokens of one shard; the last one may have fewer."""

    def __post_init__(self) -> None:
        self._check(
            "validation",
            math.isfinite(self.validation) and 0 <= self.validation < 1,
            "a share of the documents, from 0 to less than 1",
        )
        # The header counts tokens in 31 bits, as llm.c does.
        self._check("shard_tokens", 1 <= self.shard_tokens < 1 << 31, "in 1 to 2**31 - 1")
        self._check("separator", self.separator != "", "a text, or left out")
        self._check("key", self.key != "", "the name of a column, or left out")
        self._check("stdin", self.stdin in ("text", "jsonl"), "text or jsonl")
        if self.keep_separator and self.separator is None:
            raise ConfigError("keep_separator needs a separator: name one, as in --separator '\\n'")

    def _check(self, name: str, fits: bool, allowed: str) -> None:
        if not fits:
            raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be {allowed}")
