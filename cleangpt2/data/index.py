"""``index.json``: what a prepared folder holds and what it was made from.

Written last, so a folder that has one is finished. It holds no date and no path but the names as
they were given: the same command on the same files gives the same bytes.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cleangpt2.data.shards import Identity, ShardInfo
from cleangpt2.errors import DataError
from cleangpt2.files import written_aside

INDEX = "index.json"
TOKENIZER = "tokenizer"
"""The folder's own copy of the vocabulary."""
SPLITS = ("train", "validation")
_FORMAT = 1


@dataclass(slots=True)
class SourceCount:
    """What became of one source."""

    name: str
    bytes: int
    """On the disk; 0 where nobody knows."""
    lines: int = 0
    documents: int = 0
    """Of both splits, less the duplicates."""
    empty: int = 0
    bad: int = 0
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class Index:
    """The content of ``index.json``."""

    tokenizer: str
    """As it was named."""
    identity: Identity
    settings: dict[str, Any]
    sources: list[SourceCount]
    splits: dict[str, list[ShardInfo]]
    bad: list[str] = field(default_factory=list)
    """The first lines that were left out: file, line and reason."""

    def tokens(self, split: str) -> int:
        """In all shards of a split."""
        return sum(shard.tokens for shard in self.splits[split])

    def documents(self, split: str) -> int:
        """In all shards of a split."""
        return sum(shard.documents for shard in self.splits[split])

    def total(self, what: str) -> int:
        """A count over all sources, such as ``bad``."""
        return sum(getattr(source, what) for source in self.sources)


def write_index(folder: Path, index: Index) -> None:
    """Declare the folder finished."""
    content = {"format": _FORMAT} | asdict(index)
    with written_aside(folder) as scratch:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (scratch / INDEX).write_text(text, encoding="utf-8", newline="\n")


def read_index(folder: Path) -> Index | None:
    """The index of a finished folder; ``None`` where there is none.

    Raises:
        DataError: It is damaged, or written by a later version.
    """
    path = folder / INDEX
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (found := content.pop("format")) != _FORMAT:
            raise DataError(
                f"{path} has format {found!r}, this program reads {_FORMAT}: update the program, "
                "or make the folder anew with `cleangpt2 data prepare ... --fresh`"
            )
        shards = {split: [_shard(info) for info in content["splits"][split]] for split in SPLITS}
        sources = [SourceCount(**source) for source in content["sources"]]
        parsed = {"identity": Identity(**content["identity"]), "splits": shards}
        return Index(**(content | parsed | {"sources": sources}))
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be used ({type(error).__name__}: {error}): copy the folder again, or "
            "make it anew with `cleangpt2 data prepare ... --fresh`"
        ) from None


def _shard(content: dict[str, Any]) -> ShardInfo:
    info = ShardInfo(**content)
    stem, _, number = info.name.rpartition("-")
    if stem not in SPLITS or not number.isdecimal():  # it becomes a file name
        raise ValueError(f"{info.name!r} is no name of a shard")
    return info
