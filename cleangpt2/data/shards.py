"""The token files that training reads: the one place that knows their bytes.

A shard is two files. ``train-00000.bin`` holds a header of 256 little-endian int32 and then the
tokens, as uint16 where the vocabulary has at most 65,536 ids, else as uint32. That is the format of
llm.c (and of the trainers that follow it), which reads the first three numbers alone:

    0       20240520 for uint16, 20240801 for uint32
    1       1 or 7, llm.c's version of each
    2       tokens
    3       our mark, 4 our version
    5       documents that begin in this shard
    6       vocab_size, 7 the id of the end-of-text token
    16-23   sha256 of the vocabulary
    24-31   sha256 of the tokens
    32-39   sha256 of the starts

``train-00000.starts`` holds where each document begins, as uint32. Every document begins with the
end-of-text token, which stands nowhere else; a long one may go on in the next shard.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cleangpt2.errors import DataError
from cleangpt2.tokenizer import Tokenizer

HEADER_BYTES = 1024
_LLMC = {2: (20240520, 1), 4: (20240801, 7)}  # bytes of a token: magic and version
_MARK, _VERSION = 0x32504743, 1  # "CGP2"
_OUT = "copy the folder again, or make it anew with `cleangpt2 data prepare ... --fresh`"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which vocabulary the ids are of."""

    vocab_size: int
    eos_id: int
    sha256: str

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Identity":
        """That of a tokenizer: its tokens, their ids and the one that ends a text."""
        digest = hashlib.sha256()
        for token, i in sorted(tokenizer.vocabulary.shown().items(), key=lambda item: item[1]):
            digest.update(f"{i}\t{token}\n".encode())
        return cls(tokenizer.vocab_size, tokenizer.eos_id, digest.hexdigest())

    @property
    def dtype(self) -> np.dtype:
        """Of a token in a file."""
        return np.dtype("<u2" if self.vocab_size <= 1 << 16 else "<u4")


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What ``index.json`` says of a shard, and its header, too."""

    name: str
    tokens: int
    documents: int
    sha256: str
    starts_sha256: str


def header(info: ShardInfo, identity: Identity) -> bytes:
    """The first 1,024 bytes of a token file."""
    words = np.zeros(HEADER_BYTES // 4, "<i4")
    words[:3] = (*_LLMC[identity.dtype.itemsize], info.tokens)
    words[3:8] = (_MARK, _VERSION, info.documents, identity.vocab_size, identity.eos_id)
    for place, hashed in ((16, identity.sha256), (24, info.sha256), (32, info.starts_sha256)):
        words[place : place + 8] = np.frombuffer(bytes.fromhex(hashed), "<i4")
    return words.tobytes()


def parse_header(content: bytes, name: str, where: Path) -> tuple[ShardInfo, Identity]:
    """The inverse of `header`.

    Raises:
        DataError: These are not the first bytes of a shard of ours.
    """
    if len(content) < HEADER_BYTES:
        raise DataError(f"{where} is cut off after {len(content)} bytes: {_OUT}")
    words = np.frombuffer(content, "<i4", count=HEADER_BYTES // 4)
    identity = Identity(int(words[6]), int(words[7]), words[16:24].tobytes().hex())
    info = ShardInfo(
        name, int(words[2]), int(words[5]), words[24:32].tobytes().hex(),
        words[32:40].tobytes().hex(),
    )  # fmt: skip
    if (words[0], words[1]) not in _LLMC.values() or words[3] != _MARK:
        raise DataError(f"{where} is no shard of `cleangpt2 data prepare`: {_OUT}")
    if words[4] != _VERSION:
        raise DataError(
            f"{where} has version {words[4]}, this program reads {_VERSION}: update it, or {_OUT}"
        )
    if min(info.tokens, info.documents, identity.vocab_size - 1) < 0 or (
        header(info, identity) != content[:HEADER_BYTES]
    ):
        raise DataError(f"the header of {where} contradicts itself: {_OUT}")
    return info, identity


class Shard:
    """One shard, opened lazily and never read into memory as a whole."""

    def __init__(self, folder: Path, info: ShardInfo, identity: Identity) -> None:
        """Check the header and the sizes of a shard.

        Raises:
            DataError: It is not the shard that `info` tells of, or of another vocabulary.
        """
        self.info, self.identity = info, identity
        self.path, self.starts_path = shard_paths(folder, info.name)
        self._check_header()
        size = identity.dtype.itemsize
        self._check_size(self.path, HEADER_BYTES + size * info.tokens, f"{info.tokens:,} tokens")
        self._check_size(self.starts_path, 4 * info.documents, f"{info.documents:,} documents")

    def __len__(self) -> int:
        return self.info.tokens

    @cached_property
    def tokens(self) -> np.ndarray:
        """(tokens,), mapped into memory."""
        return np.memmap(self.path, self.identity.dtype, mode="r", offset=HEADER_BYTES)

    @cached_property
    def starts(self) -> np.ndarray:
        """(documents,), where each begins."""
        if not self.info.documents:
            return np.empty(0, "<u4")
        return np.memmap(self.starts_path, "<u4", mode="r")

    def verify(self) -> None:
        """Compare every byte with the checksums.

        Raises:
            DataError: One of them is another.
        """
        for path, offset, written in (
            (self.path, HEADER_BYTES, self.info.sha256),
            (self.starts_path, 0, self.info.starts_sha256),
        ):
            with open(path, "rb") as file:
                if (now := sha256(file, offset)) != written:
                    raise DataError(
                        f"{path} has sha256 {now[:12]}..., {written[:12]}... was written; "
                        f"it is damaged: {_OUT}"
                    )

    def _check_header(self) -> None:
        try:
            with open(self.path, "rb") as file:
                info, identity = parse_header(file.read(HEADER_BYTES), self.info.name, self.path)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror}): {_OUT}") from None
        if identity != self.identity:
            raise DataError(
                f"{self.path} is of another vocabulary ({identity.vocab_size:,} ids, sha256 "
                f"{identity.sha256[:12]}...) than its folder ({self.identity.vocab_size:,} ids, "
                f"{self.identity.sha256[:12]}...): {_OUT}"
            )
        if info != self.info:
            raise DataError(f"the header of {self.path} contradicts index.json: {_OUT}")

    def _check_size(self, path: Path, expected: int, what: str) -> None:
        size = path.stat().st_size if path.is_file() else -1
        if size != expected:
            held = f"has {size:,} bytes" if size >= 0 else "is missing"
            raise DataError(f"{path} {held}; {what} take {expected:,}: {_OUT}")


def shard_name(split: str, number: int) -> str:
    """The name of a shard, which its two files share.

    >>> shard_name("train", 3)
    'train-00003'
    """
    return f"{split}-{number:05d}"


def shard_paths(folder: Path, name: str) -> tuple[Path, Path]:
    """The file of the tokens and that of the starts."""
    return folder / f"{name}.bin", folder / f"{name}.starts"


def sha256(file: Any, offset: int) -> str:
    """Of a file from `offset` on."""
    file.seek(offset)
    return hashlib.file_digest(file, "sha256").hexdigest()
