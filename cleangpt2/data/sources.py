"""What `data prepare` was asked to read: files, folders, standard input, hub data sets."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cleangpt2.errors import DataError
from cleangpt2.texts import JSON_LINES, PACKED, unpacked_suffix

Kind = Literal["text", "jsonl", "parquet", "hub"]

STDIN = "-"
HUB = "hf:"
_TEXTS = (".txt", ".text", ".md")
_HUB_NAME = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?(/(?P<split>[\w.%:\[\]-]+))?"
)


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to read, in the order in which it was named."""

    name: str
    """As it was given; errors and ``index.json`` call it so."""
    kind: Kind
    path: Path | None = None
    """``None`` for standard input and the hub."""
    size: int = 0
    """Bytes on the disk; 0 where nobody knows."""
    modified_ns: int = 0

    @property
    def is_packed(self) -> bool:
        """Whether its bytes cannot be reached without unpacking those before."""
        return self.path is not None and self.path.suffix.lower() in PACKED


@dataclass(frozen=True, slots=True)
class HubName:
    """``hf:owner/name[:config][/split]`` in its parts."""

    repo: str
    config: str | None
    split: str


def find_sources(names: Sequence[str], stdin: Literal["text", "jsonl"] = "text") -> list[Source]:
    """Every file behind `names`; those of a folder by name, and only the kinds we read.

    Raises:
        DataError: Nothing is there, a file cannot be read, or one is named twice.
    """
    found = [source for name in names for source in _expand(name, stdin)]
    if not found:
        raise DataError(f"no file to read in {', '.join(names) or 'an empty list of files'}")
    seen: dict[str, str] = {}
    for source in found:
        real = str(source.path.resolve()) if source.path else source.name
        if real in seen:
            raise DataError(
                f"{source.name} is named twice (as {seen[real]}, too): its documents would count "
                "twice; name it once"
            )
        seen[real] = source.name
    return found


def parse_hub_name(name: str) -> HubName:
    """Take a hub name apart.

    >>> parse_hub_name("hf:HuggingFaceFW/fineweb:sample-10BT/train")
    HubName(repo='HuggingFaceFW/fineweb', config='sample-10BT', split='train')

    Raises:
        DataError: It has another form.
    """
    match = _HUB_NAME.fullmatch(name)
    if match is None:
        raise DataError(
            f"{name!r} names no data set of the hub: write hf:owner/name, "
            "hf:owner/name:config or hf:owner/name:config/split"
        )
    return HubName(match["repo"], match["config"], match["split"] or "train")


def _expand(name: str, stdin: Literal["text", "jsonl"]) -> list[Source]:
    if name == STDIN:
        return [Source(name, stdin)]
    if name.startswith(HUB):
        parse_hub_name(name)
        return [Source(name, "hub")]
    path = Path(name).expanduser()
    if not path.is_dir():
        return [_file(path, name)]
    inside = sorted(
        (file for file in path.rglob("*") if _is_corpus(file, path)), key=lambda f: f.as_posix()
    )
    if not inside:
        known = ", ".join((*_TEXTS, *JSON_LINES, ".parquet"))
        raise DataError(f"the folder {name} holds no corpus: no file in it ends in {known}")
    return [_file(file, file.as_posix()) for file in inside]


def _is_corpus(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    known = unpacked_suffix(file) in (*_TEXTS, *JSON_LINES, ".parquet")
    return known and not hidden and file.is_file()


def _file(path: Path, name: str) -> Source:
    try:
        with open(path, "rb"):
            about = path.stat()
    except OSError as error:
        raise DataError(
            f"{name} cannot be read ({error.strerror or error}); "
            "give text, .jsonl or .parquet files, or a folder of them"
        ) from None
    suffix = unpacked_suffix(path)
    kind: Kind = "jsonl" if suffix in JSON_LINES else "text"
    if path.suffix.lower() == ".parquet":
        kind = "parquet"
    return Source(name, kind, path, about.st_size, about.st_mtime_ns)
