"""Rows of examples: several side by side without one seeing another, or one in each row.

An example of n ids is n - 1 inputs and the n - 1 targets after them. Shifted so inside itself, it
never predicts the first token of its neighbour, and its last token needs no place. A document mask
and positions that begin again (``model/documents.py``) do the rest: packed rows have the loss and
gradient of the same examples padded, or one by one.

Letters: B rows, T places in a row.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cleangpt2.tokenizer.chat import Encoded
from cleangpt2.training.step import IGNORED

PADDING = -1
"""The document of places that hold nothing."""


class Batch(NamedTuple):
    """The tensors of some rows."""

    inputs: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    """The id that follows each input where it is to be learned, else `IGNORED`."""
    documents: Int[Tensor, "B T"]
    """The number of each input's example in its row, from 0; `PADDING` where there is none."""

    @property
    def part(self) -> tuple[Tensor, ...]:
        """What ``training.step.accumulate`` takes. Attention that looks at no documents is faster,
        and exact where padding follows a single one.
        """
        return tuple(self) if (self.documents > 0).any() else (self.inputs, self.targets)


def best_fit_decreasing(lengths: Sequence[int], T: int) -> list[list[int]]:
    """Share things of these lengths among rows of T places: which things each row holds.

    The longest first, each goes into the row that it fills best (Johnson, 1973): never more than
    11/9 of the fewest rows possible, and in practice hardly more than those.

    >>> best_fit_decreasing([3, 6, 2, 5, 4], T=10)
    [[1, 4], [3, 0, 2]]
    """
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(T + 1)]  # by the room that is left in them
    rooms = 0  # bit r is set where there are rows with room r
    for thing in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[thing]
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1  # the least that is enough
            row = open_rows[room].pop()
            if not open_rows[room]:
                rooms ^= 1 << room
        else:
            room, row = T, len(rows)
            rows.append([])
        rows[row].append(thing)
        open_rows[room - length].append(row)
        rooms |= 1 << (room - length)
    return rows


def lay_out(rows: Sequence[Sequence[Encoded]]) -> Batch:
    """The tensors of rows, as wide as the longest of them.

    >>> low = Encoded(np.array([5, 6, 7], np.int32), np.array([False, False, True]))
    >>> new = Encoded(np.array([8, 9], np.int32), np.array([False, True]))
    >>> for tensor in lay_out([[low, new], [new]]): print(tensor.tolist())
    [[5, 6, 8], [8, 0, 0]]
    [[-100, 7, 9], [9, -100, -100]]
    [[0, 0, 1], [0, -1, -1]]

    Args:
        rows: The examples of each row; a row may be empty.
    """
    ends = [[int(np.flatnonzero(example.mask)[-1]) for example in row] for row in rows]
    T = max(1, *map(sum, ends))
    inputs = np.zeros((len(rows), T), np.int64)  # any id will do where no target is
    targets, documents = np.full_like(inputs, IGNORED), np.full_like(inputs, PADDING)
    for number, row in enumerate(rows):
        start = 0
        for document, (example, n) in enumerate(zip(row, ends[number], strict=True)):
            place = (number, slice(start, start + n))
            inputs[place] = example.ids[:n]
            targets[place] = np.where(example.mask[1 : n + 1], example.ids[1 : n + 1], IGNORED)
            documents[place] = document
            start += n
    return Batch(*map(torch.from_numpy, (inputs, targets, documents)))
