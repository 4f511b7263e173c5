"""Keys and values of the tokens a model has seen, in memory reserved up front.

Rows of a batch may be of different lengths. A batch of prompts is padded on the right: a pad
comes after every real token of its row, so causal attention keeps it out of sight, and the next
tokens overwrite it. Positions therefore count from 0 in every row, as in training.

Letters: B batch, T new tokens, S visible tokens (past + new), H heads, D head width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cleangpt2.errors import ContextLengthError, InputError
from cleangpt2.model.config import GPT2Config


class KVCache:
    """The past of B sequences, for every layer of one model.

    Example: prefill two prompts of 3 and 5 tokens, then decode one token for each.

        cache = KVCache(model.config, B=2, like=model.wte.weight)
        logits = model(padded_ids, cache)          # (2, 5) -> (2, 5, V)
        cache.set_lengths([3, 5])                  # forget the padding
        logits = model(next_ids, cache)            # (2, 1) -> (2, 1, V)
    """

    def __init__(
        self, config: GPT2Config, B: int, *, like: Tensor, capacity: int | None = None
    ) -> None:
        """Reserve room for `capacity` tokens a row (default: the model's whole context).

        Args:
            like: A tensor with the data type and device the cache shall have.
        """
        limit = config.n_positions
        self.capacity = limit if capacity is None else min(capacity, limit)
        self.n_positions = config.n_positions
        self.lengths = [0] * B  # on the host, so that looking at them never waits for a GPU
        shape = (B, config.n_head, self.capacity, config.head_width)
        self.layers = [
            LayerCache(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(config.n_layer)
        ]

    @property
    def B(self) -> int:
        """Sequences held."""
        return len(self.lengths)

    def check(self, B: int, weight: Tensor) -> None:
        """Refuse rows that are not its own, and a model that is elsewhere or of another data type.

        Raises:
            InputError: What differs; nothing is changed, and no GPU is waited for.
        """
        again = "make a new one with KVCache(model.config, B, like=model.wte.weight)"
        k = self.layers[0].k
        if B != self.B:
            raise InputError(
                f"{B} rows of ids for a cache of {self.B} sequences: give one row for each sequence"
            )
        if k.device != weight.device:
            raise InputError(f"the cache is on {k.device}, the model on {weight.device}: {again}")
        # Autocast computes keys in another type than the weights', so both are right under it.
        if k.dtype != weight.dtype and not torch.is_autocast_enabled(k.device.type):
            raise InputError(f"the cache holds {k.dtype}, the model {weight.dtype}: {again}")

    def begin(self, T: int) -> Int[Tensor, "B T"]:
        """Prepare every layer for T new tokens a row and return their positions.

        Raises:
            ContextLengthError: A row has no room for T more tokens.
        """
        longest = max(self.lengths)
        if longest + T > self.capacity:
            limit = (
                f"the model's context of {self.n_positions}"
                if self.capacity == self.n_positions
                else f"a cache of {self.capacity}"
            )
            raise ContextLengthError(
                f"{longest + T} tokens do not fit in {limit}: "
                "shorten the prompt, ask for fewer new tokens, or slide the window"
            )
        keys = torch.arange(longest + T, device=self.layers[0].k.device)
        columns = visible = None
        if min(self.lengths) == longest:
            positions = keys[longest:].expand(self.B, T)
        else:  # each row goes on where it ended, and its query t sees keys 0 .. its own position
            starts = torch.tensor(self.lengths, device=keys.device)[:, None]
            positions = columns = starts + keys[:T]
            visible = keys <= positions[:, None, :, None]  # (B, 1, T, S)
        for layer in self.layers:
            layer.start, layer.end = longest, longest + T
            layer.columns, layer.visible = columns, visible
        self.lengths = [length + T for length in self.lengths]
        return positions

    def set_lengths(self, lengths: list[int]) -> None:
        """Forget what lies past `lengths` tokens of each row: padding, or rejected drafts."""
        assert len(lengths) == self.B
        assert all(0 <= new <= old for new, old in zip(lengths, self.lengths, strict=True))
        self.lengths = list(lengths)

    def select(self, rows: list[int]) -> None:
        """Keep `rows`, in this order; a row named twice is copied."""
        index = torch.tensor(rows, device=self.layers[0].k.device)
        filled = max(self.lengths)
        self.lengths = [self.lengths[row] for row in rows]
        for layer in self.layers:
            layer.k, layer.v = (_rows(held, index, filled) for held in (layer.k, layer.v))

    def replace(self, rows: list[int], other: "KVCache") -> None:
        """Put the sequences of another cache of the same model in the place of `rows`."""
        index = torch.tensor(rows, device=self.layers[0].k.device)
        for layer, new in zip(self.layers, other.layers, strict=True):
            layer.k[index, :, : other.capacity] = new.k
            layer.v[index, :, : other.capacity] = new.v
        for row, length in zip(rows, other.lengths, strict=True):
            self.lengths[row] = length


class LayerCache:
    """One layer's keys and values; `KVCache.begin` says where the next ones go."""

    def __init__(self, k: Float[Tensor, "B H N D"], v: Float[Tensor, "B H N D"]) -> None:
        self.k, self.v = k, v
        self.start = self.end = 0  # columns written and seen when all rows are equally long
        self.columns: Int[Tensor, "B T"] | None = None  # columns written when they are not
        self.visible: Bool[Tensor, "B 1 T S"] | None = None

    def append(
        self, k: Float[Tensor, "B H T D"], v: Float[Tensor, "B H T D"]
    ) -> tuple[Float[Tensor, "B H S D"], Float[Tensor, "B H S D"], Bool[Tensor, "B 1 T S"] | None]:
        """Store the new keys and values; return all S, oldest first, and who may see them."""
        if self.columns is None:
            self.k[:, :, self.start : self.end] = k
            self.v[:, :, self.start : self.end] = v
        else:
            rows = torch.arange(k.size(0), device=k.device)[:, None]
            # Index arrays on both sides of a slice move to the front: (B, T, H, D).
            self.k[rows, :, self.columns] = k.transpose(1, 2)
            self.v[rows, :, self.columns] = v.transpose(1, 2)
        return self.k[:, :, : self.end], self.v[:, :, : self.end], self.visible


def _rows(
    held: Float[Tensor, "B H N D"], index: Int[Tensor, " b"], filled: int
) -> Float[Tensor, "b H N D"]:
    """Put some rows first, in place where there is room; only what is filled moves."""
    b = len(index)
    # Zeros, not empty memory: a NaN there would pass through attention's weights of zero.
    rows = held[:b] if b <= len(held) else held.new_zeros(b, *held.shape[1:])
    rows[:, :, :filled] = held[index, :, :filled]  # the right side is a copy before it is written
    return rows
