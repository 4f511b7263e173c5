"""A prepared folder as training sees it: two rows of tokens that are never in memory as a whole."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from cleangpt2.data.index import INDEX, SPLITS, TOKENIZER, Index, read_index
from cleangpt2.data.progress import PROGRESS
from cleangpt2.data.shards import Identity, Shard, shard_name
from cleangpt2.errors import DataError
from cleangpt2.tokenizer import Tokenizer

HELD_OUT_TOKENS = 200_000
"""Of the validation documents, what a run is measured on."""


class TokenRow:
    """The tokens of several shards, one after the other, and a last end-of-text token.

    What ``batches.pack`` gives for the same documents.
    """

    def __init__(self, shards: Sequence[Shard], eos_id: int) -> None:
        self.shards, self.eos_id = list(shards), eos_id
        self._ends = np.cumsum([len(shard) for shard in self.shards], dtype=np.int64)
        self.dtype = shards[0].tokens.dtype if shards else np.dtype("<u2")

    def __len__(self) -> int:
        return int(self._ends[-1]) + 1 if self.shards else 0

    def __getitem__(self, place: slice) -> np.ndarray:
        """A copy of some consecutive tokens."""
        start, stop, step = place.indices(len(self))
        if step != 1:
            raise DataError(f"a row of tokens is read in steps of 1, not of {step}")
        pieces = []
        number = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop and number < len(self.shards):
            begin = int(self._ends[number]) - len(self.shards[number])
            pieces.append(self.shards[number].tokens[start - begin : stop - begin])
            start = min(stop, int(self._ends[number]))
            number += 1
        if start < stop:
            pieces.append(np.array([self.eos_id], self.dtype))
        return np.concatenate(pieces) if pieces else np.empty(0, self.dtype)


class Corpus:
    """A folder that `data prepare` has finished."""

    def __init__(self, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
        """Check the index, and the header and size of every shard.

        Args:
            tokenizer: Whose ids are expected; the folder's own if not given.

        Raises:
            DataError: The folder is not finished, damaged, or of another vocabulary.
        """
        self.folder = Path(folder).expanduser()
        self.index = _finished(self.folder)
        if tokenizer is not None:
            self._check_vocabulary(tokenizer)
        self.shards = {
            split: [Shard(self.folder, info, self.index.identity) for info in infos]
            for split, infos in self.index.splits.items()
        }
        eos_id = self.index.identity.eos_id
        self.train = TokenRow(self.shards["train"], eos_id)
        self.validation = TokenRow(self.shards["validation"], eos_id)

    def tokenizer(self) -> Tokenizer:
        """The vocabulary that the folder brings along.

        Raises:
            DataError: It is another than that of the shards.
        """
        tokenizer = Tokenizer.from_pretrained(self.folder / TOKENIZER)
        self._check_vocabulary(tokenizer)
        return tokenizer

    def verify(self) -> None:
        """Compare every byte with the checksums.

        Raises:
            DataError: A file is damaged; the first one is named.
        """
        for split in SPLITS:
            for shard in self.shards[split]:
                shard.verify()

    def held_out(self, tokenizer: Tokenizer, *, tokens: int = HELD_OUT_TOKENS) -> list[str]:
        """The first validation documents, as text: as many as fit into `tokens`.

        If not even one fits, what fits of it, less half a character at its end.
        """
        row = self.validation[: tokens + 1]
        if not len(row):
            return []
        ends = np.flatnonzero(row == self.index.identity.eos_id)
        if len(ends) == 1:  # of a long document what fits
            ends = np.append(ends, len(row))
        return [
            tokenizer.decode_bytes(row[start + 1 : end]).decode("utf-8", errors="ignore")
            for start, end in pairwise(ends)
        ]

    def _check_vocabulary(self, tokenizer: Tokenizer) -> None:
        asked, held = Identity.of(tokenizer), self.index.identity
        if asked != held:
            raise DataError(
                f"{self.folder} holds ids of {self.index.tokenizer or 'another tokenizer'!r} "
                f"({held.vocab_size:,} ids, sha256 {held.sha256[:12]}...), not of this tokenizer "
                f"({asked.vocab_size:,} ids, {asked.sha256[:12]}...): name the tokenizer it was "
                "made with, or prepare the text again"
            )


def is_prepared(path: Path) -> bool:
    """Whether `data prepare` has worked in a folder, finished or not, and damaged or not."""
    files = [INDEX, PROGRESS, *(f"{shard_name(split, 0)}.bin" for split in SPLITS)]
    return any((path / name).is_file() for name in files)


def _finished(folder: Path) -> Index:
    index = read_index(folder)
    if index is None and (folder / PROGRESS).is_file():
        raise DataError(
            f"{folder} is not finished: run the `cleangpt2 data prepare` that began it once more"
        )
    if index is None:
        raise DataError(
            f"{folder} holds no {INDEX}: make it with `cleangpt2 data prepare ... --out {folder}`"
        )
    return index
