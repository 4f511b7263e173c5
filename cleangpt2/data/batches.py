"""Documents packed into one row of tokens, and batches cut from it.

Which tokens a step trains on is a pure function of (seed, step), so a run can be taken up
again at any step and sees what it would have seen.

Letters: B sequences, T tokens.
"""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cleangpt2.errors import DataError
from cleangpt2.tokenizer import Tokenizer


def pack(texts: Iterable[str], tokenizer: Tokenizer) -> np.ndarray:
    """All documents in one row of ids, an end-of-text token before each and after the last.

    Returns:
        uint16 where the vocabulary fits, else uint32; shape (tokens,).
    """
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    eos = np.array([tokenizer.eos_id], dtype)
    row = [eos]
    for ids in tokenizer.encode_batch(list(texts)):
        row += [np.array(ids, dtype), eos]
    return np.concatenate(row)


class Batches:
    """Windows of T + 1 tokens in shuffled order, every token once an epoch as a target.

    Each epoch shifts the windows by a random offset, so that the same documents are cut at
    other places.
    """

    def __init__(self, tokens: np.ndarray, *, B: int, T: int, seed: int) -> None:
        """Cut `tokens` into windows.

        Raises:
            DataError: Fewer tokens than one batch needs.
        """
        self.tokens, self.B, self.T, self.seed = tokens, B, T, seed
        # One window's room is left for the offset and one token for the last target.
        self.windows = (len(tokens) - 1) // T - 1
        self.steps_per_epoch = self.windows // B
        if self.steps_per_epoch < 1:
            raise DataError(
                f"{len(tokens)} tokens are too few for batches of {B} x {T}: at least "
                f"{(B + 1) * T + 1} are needed; lower the batch size or the context, or add text"
            )
        self._order = lru_cache(maxsize=1)(self._shuffle)

    def _shuffle(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, epoch))
        return rng.integers(self.T) + self.T * rng.permutation(self.windows)

    def __call__(self, step: int) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """Inputs and targets of optimiser step `step`, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        starts = self._order(epoch)[position * self.B : (position + 1) * self.B]
        rows = np.stack([self.tokens[start : start + self.T + 1] for start in starts])
        ids = torch.from_numpy(rows.astype(np.int64))
        return ids[:, :-1], ids[:, 1:]
